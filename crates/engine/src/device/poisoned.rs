//! Buffers whose content is not what was recorded, because memory ran out or a kernel did not compile.
//!
//! A device goes on after that: what the missing content would have gone into is poisoned in turn
//! and left as it is, and whoever reads such a buffer gets the error. A buffer is whole again when
//! its memory serves the next value.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use crate::error::Error;
use crate::kernel::{Access, BufferId};
use crate::recording::{CancelToken, Command};

pub type Buffers = SmallVec<[BufferId; 6]>;

#[derive(Default)]
pub struct Poisoned {
    by: HashMap<BufferId, Error>,
    /// Those that the device never made.
    absent: HashSet<BufferId>,
    /// Errors that no read or fence of their environment has told yet.
    untold: Vec<(CancelToken, Error)>,
}

impl Poisoned {
    /// Buffers that a command writes.
    pub fn written(command: &Command) -> Buffers {
        match command {
            Command::Create { buffer, .. } | Command::Map { buffer, .. } => SmallVec::from_slice(&[*buffer]),
            Command::Upload { to, .. }
            | Command::UploadMapped { to, .. }
            | Command::Receive { to, .. }
            | Command::Zero { to }
            | Command::Copy { to, .. } => SmallVec::from_slice(&[to.buffer]),
            Command::Launch(launch) => (launch.bindings.iter().zip(launch.kernel.bindings))
                .filter(|(_, (_, access))| !matches!(access, Access::Read))
                .map(|(range, _)| range.buffer)
                .collect(),
            _ => Buffers::new(),
        }
    }

    /// What keeps a command from being run: the error behind a buffer that it reads or writes.
    pub fn hinders(&self, command: &Command) -> Option<Error> {
        if self.by.is_empty() {
            return None;
        }
        let of = |buffer: BufferId| self.by.get(&buffer).cloned();
        match command {
            Command::Upload { to, .. }
            | Command::UploadMapped { to, .. }
            | Command::Receive { to, .. }
            | Command::Zero { to } => of(to.buffer),
            Command::Copy { from, to } => of(from.buffer).or_else(|| of(to.buffer)),
            Command::Launch(launch) => launch.bindings.iter().find_map(|range| of(range.buffer)),
            Command::Read { from, .. } => of(from.buffer),
            _ => None,
        }
    }

    /// Notes that `buffers` are not what was recorded.
    pub fn poison(&mut self, buffers: Buffers, error: &Error) {
        for buffer in buffers {
            self.by.entry(buffer).or_insert_with(|| error.clone());
        }
    }

    /// Notes that the device has no such buffer.
    pub fn miss(&mut self, buffer: BufferId, error: &Error) {
        self.by.insert(buffer, error.clone());
        self.absent.insert(buffer);
    }

    /// The buffer's memory serves another value, or none. Returns whether it is yet to be made.
    pub fn forget(&mut self, buffer: BufferId) -> bool {
        !self.by.is_empty() && self.by.remove(&buffer).is_some() && self.absent.remove(&buffer)
    }

    /// An environment's next fence tells of an error that no read of its own may meet.
    pub fn owe(&mut self, owner: &CancelToken, error: &Error) {
        if !self.untold.iter().any(|(of, _)| of.is(owner)) {
            self.untold.push((owner.clone(), error.clone()));
        }
    }

    /// What a fence of that environment tells.
    pub fn told(&mut self, owner: &CancelToken) -> Option<Error> {
        let at = self.untold.iter().position(|(of, _)| of.is(owner))?;
        Some(self.untold.swap_remove(at).1)
    }
}
