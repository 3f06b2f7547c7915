//! The list of commands that a device runs, first in, first out.
//!
//! It knows buffers, ranges, kernels and scalars, but no operation and no device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;
use crate::kernel::{BufferId, Launch, Range};
use crate::mapped_file::{Lease, MappedFile};
use crate::trace::{Cost, Note};

/// Cancels the work recorded under it.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
    /// Whether both are one token.
    pub fn is_same(&self, other: &CancelToken) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// How a recording may use the processor. No bit of a result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuUse {
    /// The most threads that compute at a time; 0 for the default: all of the device's, or all but one in the
    /// background.
    pub threads: usize,
    /// Whether they run at a lower priority than the process's other threads.
    pub background: bool,
}

impl CpuUse {
    /// The number of threads, of `all` that the device has.
    pub fn count_threads(self, all: usize) -> usize {
        match self.threads {
            0 if self.background => (all - 1).max(1),
            0 => all,
            threads => threads.min(all),
        }
    }
}

/// Called once on the device's thread, with the bytes of a read or with the error.
pub type Reply = Box<dyn FnOnce(Result<Vec<u8>, Error>) + Send>;

// Most commands are launches: boxing each would cost an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    Create {
        buffer: BufferId,
        bytes: u64,
    },
    /// Reuses the memory of an existing buffer for a new value of at most as many bytes.
    Reuse {
        buffer: BufferId,
        bytes: u64,
    },
    Destroy {
        buffer: BufferId,
    },
    /// Places `buffer` on the bytes of a mapped file, read-only.
    Map {
        buffer: BufferId,
        file: Lease,
        offset: u64,
        bytes: u64,
    },
    /// Copies buffers out of a mapped file, so that it can be unmapped, and replies; if the copies do not fit, it
    /// replies with that error, and nothing changes.
    Unmap {
        file: Arc<MappedFile>,
        reply: Reply,
    },
    Upload {
        to: Range,
        bytes: Vec<u8>,
    },
    /// Uploads from a mapped file without a copy on the host.
    UploadMapped {
        to: Range,
        file: Lease,
        offset: u64,
    },
    /// Uploads bytes that the host keeps.
    UploadShared {
        to: Range,
        bytes: Arc<Vec<u8>>,
    },
    /// Waits for another device's answer to a read, and writes it.
    Receive {
        to: Range,
        from: std::sync::mpsc::Receiver<Result<Vec<u8>, Error>>,
    },
    Zero {
        to: Range,
    },
    Copy {
        from: Range,
        to: Range,
    },
    Launch(Launch),
    Read {
        from: Range,
        reply: Reply,
    },
    /// Replies when everything before it has run.
    Fence {
        reply: Reply,
    },
    /// Skips the following commands once the token is cancelled, up to the next `Under`. With `once`, the token is
    /// checked only here, so that the following commands run all or not at all.
    SetCancelToken {
        token: Option<CancelToken>,
        once: bool,
    },
    /// The owner of the following commands in a trace.
    Note(Option<Note>),
}

impl Command {
    /// The name and the cost of a command that takes time on a device.
    pub fn cost(&self) -> Option<(&'static str, Cost)> {
        let bytes = |read, written| Cost { read, written, flops: 0 };
        match self {
            Command::Launch(launch) => Some((launch.kernel.name, Cost::of(launch))),
            Command::Copy { from, to } => Some(("copy", bytes(from.bytes, to.bytes))),
            Command::Zero { to } => Some(("zero", bytes(0, to.bytes))),
            Command::Upload { to, .. }
            | Command::UploadMapped { to, .. }
            | Command::UploadShared { to, .. } => Some(("upload", bytes(to.bytes, to.bytes))),
            _ => None,
        }
    }
}

/// Commands to be run.
#[derive(Default)]
pub struct Recording {
    pub commands: Vec<Command>,
    pub upload_bytes: u64,
    /// Floating-point operations of its launches.
    pub work: u64,
    /// The token of the environment that recorded it; once it is cancelled, nothing more is run.
    pub owner: CancelToken,
    /// The token of its first command.
    pub token: Option<CancelToken>,
    /// The note of its first command.
    pub note: Option<Note>,
    pub cpu_use: CpuUse,
}

impl Recording {
    pub fn push(&mut self, command: Command) {
        match &command {
            Command::Upload { bytes, .. } => self.upload_bytes += bytes.len() as u64,
            Command::Launch(launch) => self.work += launch.work,
            _ => {}
        }
        self.commands.push(command);
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
