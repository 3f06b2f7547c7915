//! The interface between the autotuner and a device.

use std::time::Duration;

use super::Class;
use crate::error::Result;
use crate::kernel::Params;

/// The amount of work in a timed submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Operations of one run at most, unless the class is smaller.
    pub work: u64,
    /// Consecutive runs.
    pub repeats: u32,
}

/// The result of a timed submission.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub took: Duration,
    /// Operations of one run, as executed.
    pub work: u64,
}

/// Runs and times variants.
pub trait Bench {
    /// The time spent on trials, relative to any start.
    fn now(&self) -> Duration;

    /// Whether two variants give the same bits for a small problem of the class.
    fn outputs_agree(&mut self, class: &Class, variants: [Params; 2]) -> Result<bool>;

    /// Runs a variant in one submission.
    fn measure(&mut self, class: &Class, variant: Params, load: Workload) -> Result<Sample>;

    /// Releases the buffers of a class.
    fn release(&mut self) -> Result<()>;
}
