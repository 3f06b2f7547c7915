//! Autotuning: the fastest variant of a kernel, found on the user's device.
//!
//! A kernel family may have several variants of a computation that give the same bits: other tiles, another layout of
//! invocations. Which is fastest depends on the device. A plan passes to `Context::choose_tuned` the class of its
//! problem and the suitable variants, the default first, and gets the fastest known one. An unknown class is queued
//! (`table`); the device's thread measures it between two recordings, one submission at a time (`tuner`), in separate
//! buffers: each variant's result is compared with the default's, bit for bit, and then all are timed in turns. A
//! variant with other bits is never used, which is reported once. Results apply from the next recording on, and a file
//! keeps them for later processes (`store`).
//!
//! Since variants give the same bits, the time of a choice does not matter: the results of a run or a replayed
//! region do not depend on it. Variants use the same memory, too, so estimates hold.
//!
//! The core knows neither families nor devices: a `Bench` runs and times variants.

pub mod bench;
mod setting;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod tuner;

use std::fmt;
use std::hash::{Hash, Hasher};

pub use setting::{Setting, set_folder};
pub use store::{Choices, Owner, Store, Stored};
pub use table::{Notice, Table};
pub use tuner::{MeasuredVariant, Outcome, Tuner, Verdict};

use crate::error::Result;
use crate::kernel::Params;
use crate::profile::Profile;
use crate::recording::{Command, Reply};

/// The words of a class; their meaning depends on the family.
pub type Words = [u32; 8];

/// A family of kernels with variants to measure.
pub struct Family {
    pub name: &'static str,
    /// The class's unique name in the file.
    pub class: fn(&Words) -> String,
    /// The name of a variant.
    pub describe: fn(Params) -> String,
    /// Makes a problem of the class for a device.
    pub trial: fn(&Profile, &Words, Extent) -> Result<Box<dyn Trial>>,
    /// The classes of a training step of a small language model, each with its suitable variants, the default first:
    /// `lowrank devices --tune` measures them.
    pub usual: fn() -> Vec<(Words, Vec<Params>)>,
}

/// A class of problems that are assumed to have the same fastest variant.
#[derive(Clone, Copy)]
pub struct Class {
    pub family: &'static Family,
    pub words: Words,
}

impl PartialEq for Class {
    fn eq(&self, other: &Class) -> bool {
        self.family.name == other.family.name && self.words == other.words
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.family.name.hash(state);
        self.words.hash(state);
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name, (self.family.class)(&self.words))
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The size of a sample problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Small, with partial tiles: for comparing results.
    Odd,
    /// The class's size, reduced until one run takes at most `work` operations and the operands at most `BYTES`.
    Within { work: u64 },
}

/// Most bytes of the operands of a trial.
pub const BYTES: u64 = 64 << 20;

/// A sample problem, as commands for the device's thread.
pub trait Trial {
    /// Commands that create the operands; they run first.
    fn setup_commands(&self) -> Vec<Command>;

    /// Commands that run a variant `times` times.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if the device does not have the variant.
    fn run(&self, variant: Params, times: u32) -> Result<Vec<Command>>;

    /// Commands that overwrite the output by a variant and pass it to `reply`.
    ///
    /// # Errors
    /// As for `run`.
    fn output(&self, variant: Params, reply: Reply) -> Result<Vec<Command>>;

    /// Floating-point operations of one run.
    fn work(&self) -> u64;

    /// Commands that free the operands.
    fn teardown_commands(self: Box<Self>) -> Vec<Command>;
}

/// The smallest size class of at least `n`: 1, 2, 3, 4, 6, 8, 12, 16, …
pub fn size_class(n: usize) -> u32 {
    let n = n.clamp(1, 1 << 30) as u32;
    let power = n.next_power_of_two();
    if power >= 4 && n <= power / 4 * 3 { power / 4 * 3 } else { power }
}
