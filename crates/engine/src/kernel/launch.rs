//! A launch of a kernel, and the buffer ranges that it binds.

use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;

use super::scalars::Words;
use super::{Kernel, Params};
use crate::dtype::DType;

/// The id of a device's buffer; unique in the process, since environments share a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u64);

impl BufferId {
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        BufferId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A byte range of a buffer, and its element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub buffer: BufferId,
    /// Bytes from the buffer's start.
    pub offset: u64,
    pub bytes: u64,
    pub dtype: DType,
}

/// A kernel with its bindings and scalars.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static Kernel,
    pub params: Params,
    pub bindings: SmallVec<[Range; 6]>,
    pub scalars: Words,
    /// Workgroups on a GPU; the CPU implementation runs the whole launch.
    pub groups: u32,
    /// Invocations per workgroup.
    pub threads: u32,
    /// Estimated floating-point operations, which bound submissions.
    pub work: u64,
}
