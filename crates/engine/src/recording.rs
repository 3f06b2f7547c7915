//! The list of commands that a device runs, first in, first out.
//!
//! It knows buffers, ranges, kernels and scalars; no operation and no device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;
use crate::kernel::{BufferId, Launch, Range};
use crate::mapped_file::{Lease, MappedFile};
use crate::trace::{Cost, Note};

/// Asks the work recorded under it to be skipped.
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
    pub fn is(&self, other: &CancelToken) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Called once on the device's thread with the bytes of a read, or with what went wrong.
pub type Reply = Box<dyn FnOnce(Result<Vec<u8>, Error>) + Send>;

// Most of what is recorded are launches: boxing each would cost an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    Create {
        buffer: BufferId,
        bytes: u64,
    },
    /// The memory of a buffer that is there serves a new value, of as many bytes at most.
    Reuse {
        buffer: BufferId,
        bytes: u64,
    },
    Destroy {
        buffer: BufferId,
    },
    /// Gives `buffer` the bytes of a mapped file, read only.
    Map {
        buffer: BufferId,
        file: Lease,
        offset: u64,
        bytes: u64,
    },
    /// Copies what buffers have of a mapped file, so that it may go, and replies; where the copies do not fit, with
    /// that error, and all is as it was.
    Unmap {
        file: Arc<MappedFile>,
        reply: Reply,
    },
    Upload {
        to: Range,
        bytes: Vec<u8>,
    },
    /// Uploads from a mapped file without a copy on the host first.
    UploadMapped {
        to: Range,
        file: Lease,
        offset: u64,
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
    /// What follows is skipped once the token is cancelled, up to the next `Under`. Where it is
    /// looked at once, here, what follows is run whole or not at all.
    Under {
        token: Option<CancelToken>,
        once: bool,
    },
    /// Whose the commands that follow are, while a context traces.
    Note(Option<Note>),
}

impl Command {
    /// The name and the cost of one that takes time on a device.
    pub fn cost(&self) -> Option<(&'static str, Cost)> {
        let moved = |read, written| Cost { read, written, flops: 0 };
        match self {
            Command::Launch(launch) => Some((launch.kernel.name, Cost::of(launch))),
            Command::Copy { from, to } => Some(("copy", moved(from.bytes, to.bytes))),
            Command::Zero { to } => Some(("zero", moved(0, to.bytes))),
            Command::Upload { to, .. } | Command::UploadMapped { to, .. } => {
                Some(("upload", moved(to.bytes, to.bytes)))
            }
            _ => None,
        }
    }
}

/// Commands waiting to be run.
#[derive(Default)]
pub struct Recording {
    pub commands: Vec<Command>,
    pub upload_bytes: u64,
    /// Arithmetic of its launches.
    pub work: u64,
    /// The environment that recorded it; once cancelled, nothing more of it is run.
    pub owner: CancelToken,
    /// The token that its first command is under.
    pub under: Option<CancelToken>,
    /// The note that its first command is under.
    pub note: Option<Note>,
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
