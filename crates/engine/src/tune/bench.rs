//! What the tuner asks of a device.

use std::time::Duration;

use super::Class;
use crate::error::Result;
use crate::kernel::Params;

/// How much a timed submission runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Operations of one run at most, where the class is not smaller.
    pub work: u64,
    /// Runs, one after another.
    pub repeats: u32,
}

/// What a timed submission took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub took: Duration,
    /// Operations of one run, as it was made.
    pub work: u64,
}

/// Runs forms, and has the clock.
pub trait Bench {
    /// Time that went by for trials, from any start.
    fn now(&self) -> Duration;

    /// Whether two forms give the same bits for a small problem of the class.
    fn agree(&mut self, class: &Class, forms: [Params; 2]) -> Result<bool>;

    /// Runs a form in one submission.
    fn time(&mut self, class: &Class, form: Params, load: Load) -> Result<Sample>;

    /// What was made for a class may go.
    fn done(&mut self) -> Result<()>;
}
