//! How many registers an invocation needs in a loop, by an estimate of the shader alone.
//!
//! Registers of 32 bits: all variables that the loop touches, which a compiler keeps in registers where their indices
//! are constants, and the most values that are live at one place of the loop's text, what was made before the loop
//! and is used in it among them. A compiler moves loads and shares what ended, so a driver's own figure is another.

use std::collections::{HashMap, HashSet};

use super::loops::Loop;
use super::spirv::{Block, Function, Id, Instruction, Module, STORAGE_FUNCTION, Type, op};

pub fn registers(module: &Module, at: &Loop) -> u32 {
    let function = &module.functions[&at.function];
    let blocks: Vec<&Block> = function.blocks.iter().filter(|b| at.blocks.contains(&b.label)).collect();
    let mut variables = HashSet::new();
    let live = peak(module, function, &blocks, &mut variables);
    variables.iter().map(|v| pointee(module, *v)).sum::<u32>() + live
}

/// Numbers that a variable of the function's own holds.
fn pointee(module: &Module, variable: Id) -> u32 {
    match module.type_of(variable) {
        Type::Pointer(STORAGE_FUNCTION, of) => module.numbers(*of),
        _ => 0,
    }
}

/// The most numbers that are live at once; takes down the variables that are touched.
fn peak(module: &Module, function: &Function, blocks: &[&Block], variables: &mut HashSet<Id>) -> u32 {
    let own = own_variables(function);
    let text: Vec<&Instruction> = blocks.iter().flat_map(|b| &b.instructions).collect();
    let mut last: HashMap<Id, usize> = HashMap::new();
    for (at, instruction) in text.iter().enumerate() {
        for id in ids(instruction) {
            if own.contains(&id) {
                variables.insert(id);
            }
            last.insert(id, at);
        }
    }
    let made: HashSet<Id> = text.iter().filter_map(|i| i.result).collect();
    let from_outside = of_function(function).filter(|id| !made.contains(id) && last.contains_key(id));
    let outside: u32 = from_outside.map(|id| size(module, id)).sum();
    let mut ends: HashMap<usize, u32> = HashMap::new();
    let (mut live, mut most) = (outside, outside);
    for (at, instruction) in text.iter().enumerate() {
        if instruction.op == op::FUNCTION_CALL {
            let called = &module.functions[&instruction.operands[0]];
            let all: Vec<&Block> = called.blocks.iter().collect();
            most = most.max(live + peak(module, called, &all, variables));
        }
        live -= ends.remove(&at).unwrap_or(0);
        if let Some(result) = instruction.result
            && let Some(end) = last.get(&result).filter(|end| **end > at)
        {
            live += size(module, result);
            *ends.entry(*end).or_default() += size(module, result);
        }
        most = most.max(live);
    }
    most
}

fn own_variables(function: &Function) -> HashSet<Id> {
    let all = function.blocks.iter().flat_map(|b| &b.instructions);
    all.filter(|i| i.op == op::VARIABLE).filter_map(|i| i.result).collect()
}

/// The values that a function is given or makes.
fn of_function(function: &Function) -> impl Iterator<Item = Id> {
    let made = function.blocks.iter().flat_map(|b| &b.instructions).filter_map(|i| i.result);
    function.parameters.iter().copied().chain(made)
}

/// Numbers of a value that takes registers: a pointer takes none.
fn size(module: &Module, value: Id) -> u32 {
    match module.type_of(value) {
        Type::Pointer(..) => 0,
        _ => module.values.get(&value).map_or(0, |ty| module.numbers(*ty)),
    }
}

/// The values that an instruction names; literals among its words are taken for none.
fn ids(instruction: &Instruction) -> impl Iterator<Item = Id> + '_ {
    let skipped = match instruction.op {
        // The set of instructions, and which of them.
        op::EXT_INST => 2,
        op::FUNCTION_CALL => 1,
        _ => 0,
    };
    let taken = match instruction.op {
        // What follows a composite are literal numbers.
        81 => 1,
        79 | 82 => 2,
        op::LOAD => 1,
        op::STORE => 2,
        op::VARIABLE | op::LOOP_MERGE | op::SELECTION_MERGE | op::BRANCH => 0,
        op::BRANCH_CONDITIONAL | op::SWITCH => 1,
        _ => usize::MAX,
    };
    instruction.operands.iter().copied().skip(skipped).take(taken)
}
