//! What a kernel is: one computation, written twice (WGSL and native), with one binding order.

#[cfg(test)]
pub(crate) mod forms;
mod launch;
pub mod native;
pub mod scalars;
pub mod shader;

pub use launch::{BufferId, Launch, Range};

use crate::dtype::DType;
use native::NativeLaunch;

/// `head`, then `tail`: the bindings or scalars of kernels that share their first ones.
pub const fn joined<T: Copy, const N: usize>(head: &[T], tail: &[T]) -> [T; N] {
    assert!(head.len() + tail.len() == N);
    let mut all = [head[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < head.len() { head[i] } else { tail[i - head.len()] };
        i += 1;
    }
    all
}

/// How a kernel touches a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    /// Every element of the range is written; nothing is read.
    Write,
    ReadWrite,
}

/// Choices that are compiled into a kernel; their meaning is the kernel's own.
pub type Params = [u32; 4];

/// A kernel: its interface, and what computes it on each kind of device.
///
/// The WGSL body defines `fn kernel(group: u32, lane: u32)`; `shader::module` puts the
/// declarations before it: the scalars as `p.<name>`, `load_<binding>(i)` and
/// `store_<binding>(i, v)` for every binding whatever its storage type, `THREADS`,
/// `is_finite`, `is_nan`. Scalars and bindings together are at most 31.
pub struct Kernel {
    pub name: &'static str,
    pub bindings: &'static [(&'static str, Access)],
    /// The shader's names and types of the words that a launch passes (`scalars!`).
    pub scalars: fn() -> Vec<scalars::Member>,
    pub twin: Twin,
    /// Every parameter set and storage types that a plan can return, for validation.
    pub variants: fn() -> Vec<Variant>,
}

/// What computes a kernel: on a GPU a shader's body, natively a function.
#[derive(Clone, Copy)]
pub enum Twin {
    Both {
        wgsl: fn(Params) -> String,
        native: fn(&NativeLaunch),
    },
    /// Planned for GPUs alone.
    Gpu(fn(Params) -> String),
    /// Planned for processors alone.
    Native(fn(&NativeLaunch)),
}

impl Twin {
    /// What makes the shader's body; nothing of a kernel that no GPU is given.
    pub fn wgsl(&self) -> Option<fn(Params) -> String> {
        match *self {
            Twin::Both { wgsl, .. } | Twin::Gpu(wgsl) => Some(wgsl),
            Twin::Native(_) => None,
        }
    }

    /// The native function; nothing of a kernel that no processor is given.
    pub fn native(&self) -> Option<fn(&NativeLaunch)> {
        match *self {
            Twin::Both { native, .. } | Twin::Native(native) => Some(native),
            Twin::Gpu(_) => None,
        }
    }
}

/// One compiled form of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    pub params: Params,
    pub dtypes: Vec<DType>,
    pub threads: u32,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
