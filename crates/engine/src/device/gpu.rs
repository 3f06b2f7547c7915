//! A GPU through wgpu.

use super::{Profile, Runner};
use crate::error::{Code, Error, Result};
use crate::recording::Command;

pub struct Gpu;

impl Gpu {
    pub fn open_with(_: Option<usize>, _: Option<u64>) -> Result<(Profile, Gpu)> {
        Err(Error::new(Code::NoGpu, "no gpu"))
    }
}

impl Runner for Gpu {
    fn run(&mut self, _: Command) -> Result<()> {
        Ok(())
    }
}
