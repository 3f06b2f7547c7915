//! An estimate of an invocation's registers in a loop, from the shader alone.
//!
//! Counts registers of 32 bits: all variables that the loop uses (a compiler keeps them in registers if their indices
//! are constant), plus the most values that are live at one point of the loop's text, including values from before the
//! loop. A compiler moves loads and reuses registers, so a driver's figure differs.

use std::collections::{HashMap, HashSet};

use super::loops::Loop;
use super::spirv::{Block, Function, Id, Instruction, Module, STORAGE_FUNCTION, Type, op};

pub fn count_registers(module: &Module, at: &Loop) -> u32 {
    let function = &module.functions[&at.function];
    let blocks: Vec<&Block> = function.blocks.iter().filter(|b| at.blocks.contains(&b.label)).collect();
    let mut variables = HashSet::new();
    let live = find_peak(module, function, &blocks, &mut variables);
    variables.iter().map(|v| count_variable_words(module, *v)).sum::<u32>() + live
}

/// Returns the number of 32-bit words of a function's local variable.
fn count_variable_words(module: &Module, variable: Id) -> u32 {
    match module.type_of(variable) {
        Type::Pointer(STORAGE_FUNCTION, of) => module.count_scalars(*of),
        _ => 0,
    }
}

/// Returns the most numbers that are live at one point, and collects the used variables.
fn find_peak(module: &Module, function: &Function, blocks: &[&Block], variables: &mut HashSet<Id>) -> u32 {
    let own = find_variables(function);
    let text: Vec<&Instruction> = blocks.iter().flat_map(|b| &b.instructions).collect();
    let mut last: HashMap<Id, usize> = HashMap::new();
    for (at, instruction) in text.iter().enumerate() {
        for id in list_ids(instruction) {
            if own.contains(&id) {
                variables.insert(id);
            }
            last.insert(id, at);
        }
    }
    let made: HashSet<Id> = text.iter().filter_map(|i| i.result).collect();
    let from_outside =
        find_function_values(function).filter(|id| !made.contains(id) && last.contains_key(id));
    let outside: u32 = from_outside.map(|id| count_value_registers(module, id)).sum();
    let mut ends: HashMap<usize, u32> = HashMap::new();
    let (mut live, mut most) = (outside, outside);
    for (at, instruction) in text.iter().enumerate() {
        if instruction.op == op::FUNCTION_CALL {
            let called = &module.functions[&instruction.operands[0]];
            let all: Vec<&Block> = called.blocks.iter().collect();
            most = most.max(live + find_peak(module, called, &all, variables));
        }
        live -= ends.remove(&at).unwrap_or(0);
        if let Some(result) = instruction.result
            && let Some(end) = last.get(&result).filter(|end| **end > at)
        {
            live += count_value_registers(module, result);
            *ends.entry(*end).or_default() += count_value_registers(module, result);
        }
        most = most.max(live);
    }
    most
}

fn find_variables(function: &Function) -> HashSet<Id> {
    let all = function.blocks.iter().flat_map(|b| &b.instructions);
    all.filter(|i| i.op == op::VARIABLE).filter_map(|i| i.result).collect()
}

/// Returns the parameters and results of a function.
fn find_function_values(function: &Function) -> impl Iterator<Item = Id> {
    let made = function.blocks.iter().flat_map(|b| &b.instructions).filter_map(|i| i.result);
    function.parameters.iter().copied().chain(made)
}

/// Returns the number of registers of a value: a pointer has none.
fn count_value_registers(module: &Module, value: Id) -> u32 {
    match module.type_of(value) {
        Type::Pointer(..) => 0,
        _ => module.values.get(&value).map_or(0, |ty| module.count_scalars(*ty)),
    }
}

/// Returns the value ids in an instruction; literal words are skipped.
fn list_ids(instruction: &Instruction) -> impl Iterator<Item = Id> + '_ {
    let skipped = match instruction.op {
        // The instruction set, and the instruction.
        op::EXT_INST => 2,
        op::FUNCTION_CALL => 1,
        _ => 0,
    };
    let taken = match instruction.op {
        // The words after the composite are literals.
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
