//! The part of SPIR-V that counting needs: functions, their blocks in order, and the types of values.

use std::collections::HashMap;

pub type Id = u32;

/// Opcodes that are distinguished.
pub mod op {
    pub const EXT_INST: u16 = 12;
    pub const TYPE_BOOL: u16 = 20;
    pub const TYPE_INT: u16 = 21;
    pub const TYPE_FLOAT: u16 = 22;
    pub const TYPE_VECTOR: u16 = 23;
    pub const TYPE_ARRAY: u16 = 28;
    pub const TYPE_STRUCT: u16 = 30;
    pub const TYPE_POINTER: u16 = 32;
    pub const CONSTANT: u16 = 43;
    pub const FUNCTION: u16 = 54;
    pub const FUNCTION_PARAMETER: u16 = 55;
    pub const FUNCTION_END: u16 = 56;
    pub const FUNCTION_CALL: u16 = 57;
    pub const VARIABLE: u16 = 59;
    pub const LOAD: u16 = 61;
    pub const STORE: u16 = 62;
    pub const F_NEGATE: u16 = 127;
    pub const I_ADD: u16 = 128;
    pub const F_ADD: u16 = 129;
    pub const F_SUB: u16 = 131;
    pub const F_MUL: u16 = 133;
    pub const U_DIV: u16 = 134;
    pub const S_DIV: u16 = 135;
    pub const F_DIV: u16 = 136;
    pub const U_MOD: u16 = 137;
    pub const S_REM: u16 = 138;
    pub const S_MOD: u16 = 139;
    pub const F_REM: u16 = 140;
    pub const F_MOD: u16 = 141;
    pub const VECTOR_TIMES_SCALAR: u16 = 142;
    pub const DOT: u16 = 148;
    pub const U_LESS_THAN: u16 = 176;
    pub const S_LESS_THAN: u16 = 177;
    pub const LOOP_MERGE: u16 = 246;
    pub const SELECTION_MERGE: u16 = 247;
    pub const LABEL: u16 = 248;
    pub const BRANCH: u16 = 249;
    pub const BRANCH_CONDITIONAL: u16 = 250;
    pub const SWITCH: u16 = 251;
}

pub const STORAGE_WORKGROUP: u32 = 4;
pub const STORAGE_FUNCTION: u32 = 7;
pub const STORAGE_BUFFER: u32 = 12;

#[derive(Clone, Debug)]
pub struct Instruction {
    pub op: u16,
    /// The type of the result.
    pub ty: Option<Id>,
    /// The result.
    pub result: Option<Id>,
    pub operands: Vec<u32>,
}

#[derive(Clone, Debug)]
pub enum Type {
    Bool,
    Int,
    Float,
    /// The component type, and the number of components.
    Vector(Id, u32),
    /// The element type, and the length, if constant.
    Array(Id, u32),
    Struct(Vec<Id>),
    /// The storage class, and the type behind it.
    Pointer(u32, Id),
    Other,
}

#[derive(Debug)]
pub struct Block {
    pub label: Id,
    pub instructions: Vec<Instruction>,
}

impl Block {
    /// Returns the block after the loop with this header, if it is a header.
    pub fn loop_merge(&self) -> Option<Id> {
        self.instructions.iter().find(|i| i.op == op::LOOP_MERGE).map(|i| i.operands[0])
    }

    pub fn successors(&self) -> Vec<Id> {
        let Some(last) = self.instructions.last() else { return Vec::new() };
        match last.op {
            op::BRANCH => vec![last.operands[0]],
            op::BRANCH_CONDITIONAL => last.operands[1..3].to_vec(),
            // A selector, a default, then pairs of a literal and a label.
            op::SWITCH => {
                let cases = last.operands[2..].chunks(2).map(|pair| pair[1]);
                [last.operands[1]].into_iter().chain(cases).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Default)]
pub struct Function {
    pub parameters: Vec<Id>,
    pub blocks: Vec<Block>,
}

#[derive(Debug, Default)]
pub struct Module {
    pub types: HashMap<Id, Type>,
    /// The type of each value.
    pub values: HashMap<Id, Id>,
    pub constants: HashMap<Id, u32>,
    pub functions: HashMap<Id, Function>,
    pub entry: Id,
}

impl Module {
    pub fn parse(words: &[u32]) -> Module {
        let mut module = Module::default();
        let mut function = None;
        let mut at = 5;
        while at < words.len() {
            let (op, count) = (words[at] as u16, (words[at] >> 16) as usize);
            let rest = &words[at + 1..at + count];
            at += count;
            module.read_declaration(op, rest, &mut function);
        }
        module
    }

    fn read_declaration(&mut self, op: u16, rest: &[u32], function: &mut Option<Id>) {
        const ENTRY_POINT: u16 = 15;
        let ty = match op {
            op::TYPE_BOOL => Type::Bool,
            op::TYPE_INT => Type::Int,
            op::TYPE_FLOAT => Type::Float,
            op::TYPE_VECTOR => Type::Vector(rest[1], rest[2]),
            op::TYPE_ARRAY => Type::Array(rest[1], self.constants.get(&rest[2]).copied().unwrap_or(1)),
            op::TYPE_STRUCT => Type::Struct(rest[1..].to_vec()),
            op::TYPE_POINTER => Type::Pointer(rest[1], rest[2]),
            19..40 => Type::Other,
            ENTRY_POINT => {
                self.entry = rest[1];
                return;
            }
            _ => return self.read_code(op, rest, function),
        };
        self.types.insert(rest[0], ty);
    }

    fn read_code(&mut self, op: u16, rest: &[u32], function: &mut Option<Id>) {
        let makes = makes_value(op);
        let instruction = Instruction {
            op,
            ty: makes.then(|| rest[0]),
            result: makes.then(|| rest[1]),
            operands: rest[if makes { 2 } else { 0 }..].to_vec(),
        };
        if let (Some(ty), Some(result)) = (instruction.ty, instruction.result) {
            self.values.insert(result, ty);
        }
        match (op, *function) {
            (op::CONSTANT, _) => {
                self.constants.insert(rest[1], rest[2]);
            }
            (op::FUNCTION, _) => {
                *function = Some(rest[1]);
                self.functions.insert(rest[1], Function::default());
            }
            (op::FUNCTION_END, _) => *function = None,
            (op::FUNCTION_PARAMETER, Some(id)) => {
                self.functions.get_mut(&id).expect("it began").parameters.push(rest[1]);
            }
            (op::LABEL, Some(id)) => {
                let block = Block { label: rest[0], instructions: Vec::new() };
                self.functions.get_mut(&id).expect("it began").blocks.push(block);
            }
            (_, Some(id)) => {
                let function = self.functions.get_mut(&id).expect("it began");
                function.blocks.last_mut().expect("a block began").instructions.push(instruction);
            }
            _ => {}
        }
    }

    pub fn type_of(&self, value: Id) -> &Type {
        self.values.get(&value).and_then(|ty| self.types.get(ty)).unwrap_or(&Type::Other)
    }

    /// Returns the number of scalars in a value of the type: 4 for vec4<f32>.
    pub fn count_scalars(&self, ty: Id) -> u32 {
        match self.types.get(&ty) {
            Some(Type::Bool | Type::Int | Type::Float) => 1,
            Some(Type::Vector(_, n)) => *n,
            Some(Type::Array(of, n)) => n * self.count_scalars(*of),
            Some(Type::Struct(members)) => members.iter().map(|m| self.count_scalars(*m)).sum(),
            _ => 0,
        }
    }
}

/// Whether an opcode in a function has a result, so that its first words are the result's type and id.
fn makes_value(op: u16) -> bool {
    const NONE: [u16; 8] = [
        op::STORE,
        op::FUNCTION_END,
        op::LOOP_MERGE,
        op::SELECTION_MERGE,
        op::LABEL,
        op::BRANCH,
        op::BRANCH_CONDITIONAL,
        op::SWITCH,
    ];
    // Names and decorations; copies of memory; barriers; the ends of blocks.
    !NONE.contains(&op)
        && !matches!(op, 0 | 2..=8 | 10..=11 | 13..=17 | 63..=64 | 71..=75 | 224..=225 | 228 | 252..=255 | 317 | 331..=332)
}
