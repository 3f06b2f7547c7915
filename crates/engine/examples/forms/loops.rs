//! The loop nest of a shader, with the operations of an iteration of each loop.
//!
//! The count of an iteration includes called functions and both sides of each branch, but not inner loops. The number
//! of iterations is known if a loop counts up to a constant by a constant.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

use super::spirv::{Block, Function, Id, Instruction, Module, STORAGE_BUFFER, STORAGE_WORKGROUP, Type, op};

/// The operations of one invocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Counts {
    /// Multiply-adds of single numbers: a vec4's count as four.
    pub fma: u32,
    /// Other floating-point arithmetic, per number.
    pub float: u32,
    /// Integer arithmetic, mostly for indices.
    pub integer: u32,
    /// Integer divisions and remainders.
    pub divisions: u32,
    /// Loads from workgroup memory, by width: 1, 2, 3, 4 numbers.
    pub shared_loads: [u32; 4],
    /// Loads from storage buffers, by width.
    pub loads: [u32; 4],
}

impl Counts {
    pub fn flops(&self) -> u32 {
        2 * self.fma + self.float
    }

    /// Bytes that are loaded from storage buffers.
    pub fn bytes(&self) -> u32 {
        (0..4).map(|i| 4 * (i as u32 + 1) * self.loads[i]).sum()
    }

    fn scale(self, times: u32) -> Counts {
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
    /// The operations of an iteration without inner loops.
    pub counts: Counts,
    /// The number of iterations, if it is constant.
    pub trips: Option<u32>,
    /// The labels of its blocks.
    pub blocks: HashSet<Id>,
    /// The function that contains it.
    pub function: Id,
    pub inner: Vec<Loop>,
}

impl Loop {
    pub fn find_innermost(&self) -> Vec<&Loop> {
        match self.inner.is_empty() {
            true => vec![self],
            false => self.inner.iter().flat_map(Loop::find_innermost).collect(),
        }
    }

    /// The operations of an iteration including inner loops; `None` if an inner loop that computes or loads has an
    /// unknown number of iterations.
    pub fn count_iteration(&self) -> Option<Counts> {
        let mut sum = self.counts;
        for inner in &self.inner {
            let one = inner.count_iteration()?;
            sum += match inner.trips {
                Some(trips) => one.scale(trips),
                None if one.flops() == 0 && one.bytes() == 0 => one,
                None => return None,
            };
        }
        Some(sum)
    }
}

/// Returns the loops of the shader's entry point, including those in called functions.
pub fn find_loops(module: &Module) -> Vec<Loop> {
    count_function(module, module.entry).1
}

/// Returns a function's operations outside of its loops, and its loops.
fn count_function(module: &Module, id: Id) -> (Counts, Vec<Loop>) {
    let function = &module.functions[&id];
    let all = function.blocks.iter().map(|b| b.label).collect();
    count_blocks(module, id, &all, None)
}

/// Returns the blocks' operations outside of loops that start in them, and these loops; `header` is the header of the
/// surrounding loop.
fn count_blocks(module: &Module, id: Id, blocks: &HashSet<Id>, header: Option<Id>) -> (Counts, Vec<Loop>) {
    let function = &module.functions[&id];
    let mut counts = Counts::default();
    let mut loops = Vec::new();
    let mut inner_blocks: HashSet<Id> = HashSet::new();
    // Blocks are in textual order, with a loop's header before its body.
    for block in function.blocks.iter().filter(|b| blocks.contains(&b.label)) {
        if inner_blocks.contains(&block.label) {
            continue;
        }
        if let Some(merge) = block.loop_merge().filter(|_| header != Some(block.label)) {
            let body = find_body(function, block.label, merge);
            inner_blocks.extend(&body);
            let (counts, inner) = count_blocks(module, id, &body, Some(block.label));
            let trips = find_trips(module, function, &body);
            loops.push(Loop { counts, trips, blocks: body, function: id, inner });
            continue;
        }
        for instruction in &block.instructions {
            if instruction.op == op::FUNCTION_CALL {
                let (called, its) = count_function(module, instruction.operands[0]);
                counts += called;
                loops.extend(its);
            } else {
                counts += count_instruction(module, instruction);
            }
        }
    }
    (counts, loops)
}

/// Returns the labels of blocks that are reachable from a loop's header without leaving the loop.
fn find_body(function: &Function, header: Id, merge: Id) -> HashSet<Id> {
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

fn count_instruction(module: &Module, instruction: &Instruction) -> Counts {
    let mut counts = Counts::default();
    let numbers = instruction.ty.map_or(0, |ty| module.count_scalars(ty));
    let float = instruction.ty.is_some_and(|ty| is_float(module, ty));
    match instruction.op {
        op::EXT_INST => {
            const FMA: u32 = 50;
            match (instruction.operands[1], float) {
                (FMA, _) => counts.fma = numbers,
                // Packing and unpacking are conversions.
                (54..=64, _) => {}
                (_, true) => counts.float = numbers,
                (_, false) => counts.integer = numbers,
            }
        }
        op::DOT => {
            // One product, and a multiply-add for each further pair.
            let n = module.values.get(&instruction.operands[0]).map_or(1, |ty| module.count_scalars(*ty));
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

/// Returns the number of a loop's iterations if its variable is compared with a constant and incremented by one. An
/// unknown start counts as 0, since loops over workgroup memory start at an invocation's number.
fn find_trips(module: &Module, function: &Function, body: &HashSet<Id>) -> Option<u32> {
    let inside = || function.blocks.iter().filter(|b| body.contains(&b.label)).flat_map(|b| &b.instructions);
    let results: HashMap<Id, &Instruction> = inside().filter_map(|i| Some((i.result?, i))).collect();
    let variable = |value: Id| results.get(&value).filter(|i| i.op == op::LOAD).map(|i| i.operands[0]);
    let compared = inside().find(|i| matches!(i.op, op::U_LESS_THAN | op::S_LESS_THAN))?;
    let counter = variable(compared.operands[0])?;
    let end = module.constants.get(&compared.operands[1])?;
    let mut steps = inside().filter(|i| i.op == op::STORE && i.operands[0] == counter);
    let sum = results.get(&steps.next()?.operands[1]).filter(|i| i.op == op::I_ADD)?;
    if steps.next().is_some() || variable(sum.operands[0]) != Some(counter) {
        return None;
    }
    let step = module.constants.get(&sum.operands[1])?;
    let start = find_start(module, function, body, counter).unwrap_or(0);
    Some(end.saturating_sub(start).div_ceil(*step))
}

/// Returns a variable's value before the loop, if constant: from its last store there, or its initialiser.
fn find_start(module: &Module, function: &Function, body: &HashSet<Id>, counter: Id) -> Option<u32> {
    let before =
        || function.blocks.iter().take_while(|b| !body.contains(&b.label)).flat_map(|b| &b.instructions);
    let stored =
        before().filter(|i| i.op == op::STORE && i.operands[0] == counter).last().map(|i| i.operands[1]);
    let results = || before().find(|i| i.result == Some(counter)).and_then(|i| i.operands.get(1).copied());
    module.constants.get(&stored.or_else(results)?).copied()
}
