//! The list of commands that a device runs, first in, first out.
//!
//! It knows buffers, ranges, kernels and scalars; no operation and no device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::Error;
use crate::kernel::scalars::Words;
use crate::kernel::{Kernel, Params};
use crate::mapped_file::{Lease, MappedFile};
use crate::trace::Note;

/// A buffer of a device; unique in the process, so that environments share a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u64);

impl BufferId {
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        BufferId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Bytes of a buffer, and what they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub buffer: BufferId,
    /// Bytes from the buffer's start.
    pub offset: u64,
    pub bytes: u64,
    pub dtype: DType,
}

/// One kernel over its bindings.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static Kernel,
    pub params: Params,
    pub bindings: SmallVec<[Range; 6]>,
    pub scalars: Words,
    /// Workgroups on a GPU; the native twin does the whole launch by itself.
    pub groups: u32,
    /// Invocations of a workgroup.
    pub threads: u32,
    /// Estimated floating-point operations, for bounded submissions.
    pub work: u64,
}

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
