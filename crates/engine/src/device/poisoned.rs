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
    errors: HashMap<BufferId, Error>,
    /// Buffers that the device failed to create.
    absent: HashSet<BufferId>,
    /// Errors that no read or fence of their environment has reported yet.
    unreported: Vec<(CancelToken, Error)>,
}

impl Poisoned {
    /// Returns the buffers that a command writes.
    pub fn list_written_buffers(command: &Command) -> Buffers {
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
    pub fn find_error(&self, command: &Command) -> Option<Error> {
        if self.errors.is_empty() {
            return None;
        }
        let find = |buffer: BufferId| self.errors.get(&buffer).cloned();
        match command {
            Command::Upload { to, .. }
            | Command::UploadMapped { to, .. }
            | Command::UploadShared { to, .. }
            | Command::Receive { to, .. }
            | Command::Zero { to } => find(to.buffer),
            Command::Copy { from, to } => find(from.buffer).or_else(|| find(to.buffer)),
            Command::Launch(launch) => launch.bindings.iter().find_map(|range| find(range.buffer)),
            Command::Read { from, .. } => find(from.buffer),
            _ => None,
        }
    }

    /// Marks `buffers` as invalid.
    pub fn poison(&mut self, buffers: Buffers, error: &Error) {
        for buffer in buffers {
            self.errors.entry(buffer).or_insert_with(|| error.clone());
        }
    }

    /// Records that the device failed to create the buffer.
    pub fn mark_absent(&mut self, buffer: BufferId, error: &Error) {
        self.errors.insert(buffer, error.clone());
        self.absent.insert(buffer);
    }

    /// Clears a buffer's mark when its memory is reused or freed. Returns whether the buffer has yet to be created.
    pub fn clear(&mut self, buffer: BufferId) -> bool {
        !self.errors.is_empty() && self.errors.remove(&buffer).is_some() && self.absent.remove(&buffer)
    }

    /// Queues an error for the environment's next fence, in case none of its reads reports it.
    pub fn queue_error(&mut self, owner: &CancelToken, error: &Error) {
        if !self.unreported.iter().any(|(other, _)| other.is_same(owner)) {
            self.unreported.push((owner.clone(), error.clone()));
        }
    }

    /// Takes the error that the environment's fence must report.
    pub fn take_error(&mut self, owner: &CancelToken) -> Option<Error> {
        let at = self.unreported.iter().position(|(other, _)| other.is_same(owner))?;
        Some(self.unreported.swap_remove(at).1)
    }
}
