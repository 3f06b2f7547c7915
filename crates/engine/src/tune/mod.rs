//! Forms of a problem, found on the user's own device.
//!
//! A family of kernels may compute a problem in several forms that give the same bits: tiles of other
//! shapes, another layout of invocations. Which is fastest depends on the device, so none is assumed: a plan
//! hands `Context::tuned` the class of its problem and the forms that suit, the one that it would take unasked
//! first, and is answered with the fastest that is known. What is not known is queued (`table`), and the
//! device's thread tries it between two recordings, a submission at a time (`tuner`), on buffers of its own:
//! each form's numbers are compared with the first's, to the bit, and then all are timed in turns. A form
//! with other numbers is used for no problem, which is told once. What was found is used from the next
//! recording on, and kept in a file for the processes to come (`store`).
//!
//! Since forms give the same bits, it does not matter when a choice comes: a run's numbers do not depend on
//! it, nor do those of a region that is recorded again. They use the same memory, too, so that estimates
//! hold.
//!
//! The core knows neither families nor devices: a `Bench` runs forms and has the clock.

pub mod bench;
mod setting;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod tuner;

use std::fmt;
use std::hash::{Hash, Hasher};

pub use setting::{Setting, keep_in};
pub use store::{Forms, Kept, Owner, Store};
pub use table::{Notice, Table};
pub use tuner::{Outcome, Tried, Tuner, Verdict};

use crate::error::Result;
use crate::kernel::Params;
use crate::profile::Profile;
use crate::recording::{Command, Reply};

/// What makes up a class; their meaning is the family's.
pub type Words = [u32; 8];

/// A family of kernels whose forms are tried.
pub struct Family {
    pub name: &'static str,
    /// Says a class, and nothing else alike: it is the class's name in the file.
    pub class: fn(&Words) -> String,
    /// The name of a form.
    pub form: fn(Params) -> String,
    /// Makes a problem of the class for a device.
    pub trial: fn(&Profile, &Words, Extent) -> Result<Box<dyn Trial>>,
    /// The classes of a training step of a small language model, with the forms that suit each, the one that is
    /// taken unasked first: what `lowrank devices --tune` tries.
    pub usual: fn() -> Vec<(Words, Vec<Params>)>,
}

/// Problems that are taken to have the same fastest form.
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

/// How large a problem of a class is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Small, with ends that fill no tile: for comparing numbers.
    Odd,
    /// As the class says, made smaller until one run takes at most `work` operations and the operands at most
    /// `BYTES`.
    Within { work: u64 },
}

/// What the operands of a trial hold at most, in bytes.
pub const BYTES: u64 = 64 << 20;

/// A problem that was made to be tried, as commands that the device's thread runs.
pub trait Trial {
    /// Those that make its operands: the first to be run.
    fn made(&self) -> Vec<Command>;

    /// Those of a form's launches, `times` one after another.
    ///
    /// # Errors
    /// The device's that has no such form.
    fn run(&self, form: Params, times: u32) -> Result<Vec<Command>>;

    /// Those that have `reply` called with what a form writes over numbers of no meaning.
    ///
    /// # Errors
    /// As `run`.
    fn output(&self, form: Params, reply: Reply) -> Result<Vec<Command>>;

    /// Floating-point operations of one run.
    fn work(&self) -> u64;

    /// Those that let its operands go.
    fn ended(self: Box<Self>) -> Vec<Command>;
}

/// The next size of a class from `n` on: 1, 2, 3, 4, 6, 8, 12, 16, …
pub fn size_class(n: usize) -> u32 {
    let n = n.clamp(1, 1 << 30) as u32;
    let power = n.next_power_of_two();
    if power >= 4 && n <= power / 4 * 3 { power / 4 * 3 } else { power }
}
