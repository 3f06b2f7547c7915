//! One launch of a kernel, and the ranges of buffers that it binds.

use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::scalars::Words;
use super::{Kernel, Params};
use crate::dtype::DType;

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
