//! The loops of a shader, one within the other, and what an iteration of each does.
//!
//! An iteration is counted with what it calls, each side of a branch as if it were taken, and without the loops within
//! it. How often a loop runs is known where it counts up by a constant to a constant.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

use super::spirv::{Block, Function, Id, Instruction, Module, STORAGE_BUFFER, STORAGE_WORKGROUP, Type, op};

/// Operations of one invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counts {
    /// Multiply-adds of a number each: a vec4's are four.
    pub fma: u32,
    /// Other arithmetic of floats, a number each.
    pub float: u32,
    /// Arithmetic of whole numbers, indices for the most part.
    pub integer: u32,
    /// Divisions and remainders of whole numbers.
    pub divisions: u32,
    /// Loads from workgroup memory, by how many numbers one loads: 1, 2, 3, 4.
    pub shared_loads: [u32; 4],
    /// Loads from storage buffers, likewise.
    pub loads: [u32; 4],
}

impl Counts {
    pub fn flops(&self) -> u32 {
        2 * self.fma + self.float
    }

    /// Bytes that loads from storage buffers ask for.
    pub fn bytes(&self) -> u32 {
        (0..4).map(|i| 4 * (i as u32 + 1) * self.loads[i]).sum()
    }

    fn scaled(self, times: u32) -> Counts {
        Counts {
            fma: self.fma * times,
            float: self.float * times,
            integer: self.integer * times,
            divisions: self.divisions * times,
            shared_loads: self.shared_loads.map(|n| n * times),
            loads: self.loads.map(|n| n * times),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.fma += other.fma;
        self.float += other.float;
        self.integer += other.integer;
        self.divisions += other.divisions;
        for i in 0..4 {
            self.shared_loads[i] += other.shared_loads[i];
            self.loads[i] += other.loads[i];
        }
    }
}

#[derive(Debug)]
pub struct Loop {
    /// What an iteration does outside of the loops within.
    pub counts: Counts,
    /// How often it runs, where that is a constant.
    pub trips: Option<u32>,
    /// Labels of its blocks.
    pub blocks: HashSet<Id>,
    /// The function that it lies in.
    pub function: Id,
    pub within: Vec<Loop>,
}

impl Loop {
    pub fn innermost(&self) -> Vec<&Loop> {
        match self.within.is_empty() {
            true => vec![self],
            false => self.within.iter().flat_map(Loop::innermost).collect(),
        }
    }

    /// An iteration, with the loops within it; nothing where one of those that compute or load runs who knows how often.
    pub fn iteration(&self) -> Option<Counts> {
        let mut sum = self.counts;
        for inner in &self.within {
            let one = inner.iteration()?;
            sum += match inner.trips {
                Some(trips) => one.scaled(trips),
                None if one.flops() == 0 && one.bytes() == 0 => one,
                None => return None,
            };
        }
        Some(sum)
    }
}

/// The loops of the shader's entry point, those of what it calls among them.
pub fn loops(module: &Module) -> Vec<Loop> {
    of_function(module, module.entry).1
}

/// What a function does outside of its loops, and these.
fn of_function(module: &Module, id: Id) -> (Counts, Vec<Loop>) {
    let function = &module.functions[&id];
    let all = function.blocks.iter().map(|b| b.label).collect();
    within(module, id, &all, None)
}

/// What the blocks do outside of loops that start among them, and these loops; `header` heads the loop they belong to.
fn within(module: &Module, id: Id, blocks: &HashSet<Id>, header: Option<Id>) -> (Counts, Vec<Loop>) {
    let function = &module.functions[&id];
    let mut counts = Counts::default();
    let mut loops = Vec::new();
    let mut taken: HashSet<Id> = HashSet::new();
    // Blocks stand in the order of the text, a loop's header before what is in it.
    for block in function.blocks.iter().filter(|b| blocks.contains(&b.label)) {
        if taken.contains(&block.label) {
            continue;
        }
        if let Some(merge) = block.loop_merge().filter(|_| header != Some(block.label)) {
            let body = body(function, block.label, merge);
            taken.extend(&body);
            let (counts, within) = within(module, id, &body, Some(block.label));
            let trips = trips(module, function, &body);
            loops.push(Loop { counts, trips, blocks: body, function: id, within });
            continue;
        }
        for instruction in &block.instructions {
            if instruction.op == op::FUNCTION_CALL {
                let (called, its) = of_function(module, instruction.operands[0]);
                counts += called;
                loops.extend(its);
            } else {
                counts += count(module, instruction);
            }
        }
    }
    (counts, loops)
}

/// Labels of what can be reached from a loop's header without leaving it.
fn body(function: &Function, header: Id, merge: Id) -> HashSet<Id> {
    let blocks: HashMap<Id, &Block> = function.blocks.iter().map(|b| (b.label, b)).collect();
    let mut seen = HashSet::new();
    let mut open = vec![header];
    while let Some(label) = open.pop() {
        if label != merge && seen.insert(label) {
            open.extend(blocks[&label].successors());
        }
    }
    seen
}

fn count(module: &Module, instruction: &Instruction) -> Counts {
    let mut counts = Counts::default();
    let numbers = instruction.ty.map_or(0, |ty| module.numbers(ty));
    let float = instruction.ty.is_some_and(|ty| is_float(module, ty));
    match instruction.op {
        op::EXT_INST => {
            const FMA: u32 = 50;
            match (instruction.operands[1], float) {
                (FMA, _) => counts.fma = numbers,
                // Packing and unpacking convert.
                (54..=64, _) => {}
                (_, true) => counts.float = numbers,
                (_, false) => counts.integer = numbers,
            }
        }
        op::DOT => {
            // A product, and a multiply-add for each further pair.
            let n = module.values.get(&instruction.operands[0]).map_or(1, |ty| module.numbers(*ty));
            counts.fma = n - 1;
            counts.float = 1;
        }
        op::U_DIV | op::S_DIV | op::U_MOD | op::S_REM | op::S_MOD => counts.divisions = numbers,
        op::F_NEGATE
        | op::F_ADD
        | op::F_SUB
        | op::F_MUL
        | op::F_DIV
        | op::F_REM
        | op::F_MOD
        | op::VECTOR_TIMES_SCALAR => counts.float = numbers,
        // Sums, products, shifts and bits.
        126 | op::I_ADD | 130 | 132 | 194..=200 => counts.integer = numbers,
        op::LOAD => {
            let Type::Pointer(class, _) = module.type_of(instruction.operands[0]) else { return counts };
            let width = (numbers.clamp(1, 4) - 1) as usize;
            match *class {
                STORAGE_WORKGROUP => counts.shared_loads[width] = 1,
                STORAGE_BUFFER => counts.loads[width] = 1,
                _ => {}
            }
        }
        _ => {}
    }
    counts
}

fn is_float(module: &Module, ty: Id) -> bool {
    match module.types.get(&ty) {
        Some(Type::Float) => true,
        Some(Type::Vector(of, _)) => is_float(module, *of),
        _ => false,
    }
}

/// How often a loop runs: its variable is compared with a constant, and what it is counted up by is one. Where it
/// starts is taken for 0, as loops over what a workgroup shares start at an invocation's own number.
fn trips(module: &Module, function: &Function, body: &HashSet<Id>) -> Option<u32> {
    let inside = || function.blocks.iter().filter(|b| body.contains(&b.label)).flat_map(|b| &b.instructions);
    let made: HashMap<Id, &Instruction> = inside().filter_map(|i| Some((i.result?, i))).collect();
    let variable = |value: Id| made.get(&value).filter(|i| i.op == op::LOAD).map(|i| i.operands[0]);
    let compared = inside().find(|i| matches!(i.op, op::U_LESS_THAN | op::S_LESS_THAN))?;
    let counter = variable(compared.operands[0])?;
    let end = module.constants.get(&compared.operands[1])?;
    let mut steps = inside().filter(|i| i.op == op::STORE && i.operands[0] == counter);
    let sum = made.get(&steps.next()?.operands[1]).filter(|i| i.op == op::I_ADD)?;
    if steps.next().is_some() || variable(sum.operands[0]) != Some(counter) {
        return None;
    }
    let step = module.constants.get(&sum.operands[1])?;
    let start = start(module, function, body, counter).unwrap_or(0);
    Some(end.saturating_sub(start).div_ceil(*step))
}

/// The constant that a variable has before the loop: what it was last given there, or was made with.
fn start(module: &Module, function: &Function, body: &HashSet<Id>, counter: Id) -> Option<u32> {
    let before =
        || function.blocks.iter().take_while(|b| !body.contains(&b.label)).flat_map(|b| &b.instructions);
    let given =
        before().filter(|i| i.op == op::STORE && i.operands[0] == counter).last().map(|i| i.operands[1]);
    let made = || before().find(|i| i.result == Some(counter)).and_then(|i| i.operands.get(1).copied());
    module.constants.get(&given.or_else(made)?).copied()
}
