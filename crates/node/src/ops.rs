//! One method an operation.

use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::kernels::elementwise::Function;
use lowrank_engine::ops;
use napi_derive::napi;

use crate::error::{Result, thrown};
use crate::session::Session;

fn function(name: &str, operands: usize) -> Result<Function> {
    let found = Function::ALL.iter().find(|f| f.name() == name && f.operands() == operands);
    found.copied().ok_or_else(|| thrown(fail_code(Code::Internal, format!("there is no function {name}"))))
}

#[napi]
impl Session {
    #[napi]
    pub fn unary(&self, name: String, x: u32) -> Result<u32> {
        self.apply(ops::unary::Unary(function(&name, 1)?), &[x])
    }

    #[napi]
    pub fn binary(&self, name: String, a: u32, b: u32) -> Result<u32> {
        self.apply(ops::binary::Binary(function(&name, 2)?), &[a, b])
    }

    #[napi]
    pub fn sum(&self, x: u32, dim: Option<u32>) -> Result<u32> {
        self.apply(ops::sum::Sum { dim: dim.map(|d| d as usize) }, &[x])
    }
}
