//! Poisoned buffers: their content is invalid because memory ran out or a kernel did not compile.
//!
//! The device keeps running after such an error. A command that depends on a poisoned buffer is skipped and poisons the
//! buffers that it would write; a read of one returns the error. A buffer is valid again when its memory is reused for
//! another value.

use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use crate::error::Error;
use crate::kernel::{Access, BufferId};
use crate::recording::{CancelToken, Command};

pub type Buffers = SmallVec<[BufferId; 6]>;

#[derive(Default)]
pub struct Poisoned {
    by: HashMap<BufferId, Error>,
    /// Buffers that the device failed to create.
    absent: HashSet<BufferId>,
    /// Errors that no read or fence of their environment has reported yet.
    untold: Vec<(CancelToken, Error)>,
}

impl Poisoned {
    /// Returns the buffers that a command writes.
    pub fn written(command: &Command) -> Buffers {
        match command {
            Command::Create { buffer, .. } | Command::Map { buffer, .. } => SmallVec::from_slice(&[*buffer]),
            Command::Upload { to, .. }
            | Command::UploadMapped { to, .. }
            | Command::UploadShared { to, .. }
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

    /// Returns the error of a poisoned buffer that the command reads or writes; the command must be skipped.
    pub fn hinders(&self, command: &Command) -> Option<Error> {
        if self.by.is_empty() {
            return None;
        }
        let of = |buffer: BufferId| self.by.get(&buffer).cloned();
        match command {
            Command::Upload { to, .. }
            | Command::UploadMapped { to, .. }
            | Command::UploadShared { to, .. }
            | Command::Receive { to, .. }
            | Command::Zero { to } => of(to.buffer),
            Command::Copy { from, to } => of(from.buffer).or_else(|| of(to.buffer)),
            Command::Launch(launch) => launch.bindings.iter().find_map(|range| of(range.buffer)),
            Command::Read { from, .. } => of(from.buffer),
            _ => None,
        }
    }

    /// Marks `buffers` as invalid.
    pub fn poison(&mut self, buffers: Buffers, error: &Error) {
        for buffer in buffers {
            self.by.entry(buffer).or_insert_with(|| error.clone());
        }
    }

    /// Records that the device failed to create the buffer.
    pub fn miss(&mut self, buffer: BufferId, error: &Error) {
        self.by.insert(buffer, error.clone());
        self.absent.insert(buffer);
    }

    /// Clears a buffer's mark when its memory is reused or freed. Returns whether the buffer has yet to be created.
    pub fn forget(&mut self, buffer: BufferId) -> bool {
        !self.by.is_empty() && self.by.remove(&buffer).is_some() && self.absent.remove(&buffer)
    }

    /// Queues an error for the environment's next fence, in case none of its reads reports it.
    pub fn owe(&mut self, owner: &CancelToken, error: &Error) {
        if !self.untold.iter().any(|(of, _)| of.is(owner)) {
            self.untold.push((owner.clone(), error.clone()));
        }
    }

    /// Takes the error that the environment's fence must report.
    pub fn take_error(&mut self, owner: &CancelToken) -> Option<Error> {
        let at = self.untold.iter().position(|(of, _)| of.is(owner))?;
        Some(self.untold.swap_remove(at).1)
    }
}
