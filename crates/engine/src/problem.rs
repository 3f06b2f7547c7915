//! Sample problems for autotuning: operands and launches on a separate context, whose commands are kept for the
//! device's thread.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use lowrank_cpu::random::Stream;

use crate::context::{Context, Value};
use crate::device::Sink;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::Params;
use crate::profile::Profile;
use crate::recording::{Command, Reply};
use crate::shape::Shape;
use crate::tune::Trial;

/// A problem of a class.
pub struct Problem {
    /// Appends the launches of a variant.
    pub run: Box<dyn Fn(Params) -> Result<()>>,
    /// The value that they write.
    pub output: Value,
    /// Floating-point operations of one run.
    pub work: u64,
}

/// A problem and its context.
struct ProblemTrial {
    problem: Problem,
    cx: Rc<Context>,
    commands: Arc<Mutex<Vec<Command>>>,
}

impl Problem {
    /// Makes a problem with `make` on a context for a device of this profile, for the tuner.
    ///
    /// # Errors
    /// The errors of `make`.
    pub fn make_trial(
        profile: &Profile,
        make: impl FnOnce(&Rc<Context>) -> Result<Problem>,
    ) -> Result<Box<dyn Trial>> {
        let commands = Arc::default();
        let cx = Context::new(profile.clone(), Sink::Collected(Arc::clone(&commands)));
        let problem = make(&cx)?;
        Ok(Box::new(ProblemTrial { problem, cx, commands }))
    }
}

impl ProblemTrial {
    /// The commands recorded since the last call.
    fn take_commands(&self) -> Vec<Command> {
        self.cx.flush();
        drain_commands(&self.commands)
    }
}

fn drain_commands(commands: &Mutex<Vec<Command>>) -> Vec<Command> {
    std::mem::take(&mut *commands.lock().unwrap_or_else(|e| e.into_inner()))
}

impl Trial for ProblemTrial {
    fn setup_commands(&self) -> Vec<Command> {
        self.take_commands()
    }

    fn run(&self, variant: Params, times: u32) -> Result<Vec<Command>> {
        (0..times).try_for_each(|_| (self.problem.run)(variant))?;
        Ok(self.take_commands())
    }

    fn output(&self, variant: Params, reply: Reply) -> Result<Vec<Command>> {
        let output = &self.problem.output;
        self.cx.write(output, draw_bytes(output.size(), output.dtype, 6));
        (self.problem.run)(variant)?;
        self.cx.read(output, reply);
        Ok(self.take_commands())
    }

    fn work(&self) -> u64 {
        self.problem.work
    }

    fn teardown_commands(self: Box<Self>) -> Vec<Command> {
        let ProblemTrial { problem, cx, commands } = *self;
        drop(problem);
        // The last reference; it frees its device memory.
        drop(cx);
        drain_commands(&commands)
    }
}

/// Random elements; larger values repeat them.
const DRAWN_ELEMENTS: usize = 1 << 16;

/// A value of normally distributed numbers.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn make_operand(cx: &Rc<Context>, shape: impl Into<Shape>, dtype: DType, seed: u64) -> Result<Value> {
    let value = cx.empty(shape, dtype)?;
    let size = value.size();
    let mut filled = size.min(DRAWN_ELEMENTS);
    cx.write(&value.sub_range(0, [filled]), draw_bytes(filled, dtype, seed));
    while filled < size {
        let more = filled.min(size - filled);
        cx.copy(&value.sub_range(0, [more]), &value.sub_range(filled, [more]));
        filled += more;
    }
    Ok(value)
}

/// The bytes of `n` such numbers.
fn draw_bytes(n: usize, dtype: DType, seed: u64) -> Vec<u8> {
    let numbers = Stream { seed, counter: 0 }.normal(n, 0.0, 1.0);
    match dtype {
        DType::F32 => bytemuck::cast_slice(&numbers).to_vec(),
        DType::F16 => numbers.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        DType::BF16 => numbers.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        DType::Block(_) => unreachable!("products by blocks have one form"),
        DType::I32 => numbers.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect(),
    }
}
