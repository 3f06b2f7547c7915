//! A kernel: one computation, written twice (WGSL and native), with one order of bindings.

#[cfg(test)]
pub(crate) mod coverage;
mod launch;
pub mod native;
pub mod scalars;
pub mod shader;

pub use launch::{BufferId, Launch, Range};

use crate::dtype::DType;
use native::NativeLaunch;

/// Concatenates `head` and `tail`, for kernels that share their first bindings or scalars.
pub const fn concat<T: Copy, const N: usize>(head: &[T], tail: &[T]) -> [T; N] {
    assert!(head.len() + tail.len() == N);
    let mut all = [head[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < head.len() { head[i] } else { tail[i - head.len()] };
        i += 1;
    }
    all
}

/// A kernel's access to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    /// Every element of the range is written; nothing is read.
    Write,
    ReadWrite,
}

/// Compile-time parameters of a kernel; their meaning depends on the kernel.
pub type Params = [u32; 4];

/// A kernel: its interface, and its implementation for each kind of device.
///
/// The WGSL body defines `fn kernel(group: u32, lane: u32)`; `shader::emit_module` prepends the declarations: the scalars as
/// `p.<name>`, `load_<binding>(i)` and `store_<binding>(i, v)` for bindings of every storage type, `THREADS`,
/// `is_finite`, `is_nan`. Scalars and bindings together are at most 31.
pub struct Kernel {
    pub name: &'static str,
    pub bindings: &'static [(&'static str, Access)],
    /// The shader's names and types of the launch's words (`scalars!`).
    pub scalars: fn() -> Vec<scalars::Member>,
    pub implementations: Implementations,
    /// Every combination of parameters and storage types that a plan can return, for validation.
    pub variants: fn() -> Vec<Variant>,
}

/// The implementations of a kernel: a shader's body for a GPU, a function for the CPU.
#[derive(Clone, Copy)]
pub enum Implementations {
    Both {
        wgsl: fn(Params) -> String,
        native: fn(&NativeLaunch),
    },
    /// For GPUs only.
    Gpu(fn(Params) -> String),
    /// For the CPU only.
    Native(fn(&NativeLaunch)),
}

impl Implementations {
    /// The function that returns the shader's body; `None` if no GPU runs this kernel.
    pub fn wgsl(&self) -> Option<fn(Params) -> String> {
        match *self {
            Implementations::Both { wgsl, .. } | Implementations::Gpu(wgsl) => Some(wgsl),
            Implementations::Native(_) => None,
        }
    }

    /// The native function; `None` if no CPU runs this kernel.
    pub fn native(&self) -> Option<fn(&NativeLaunch)> {
        match *self {
            Implementations::Both { native, .. } | Implementations::Native(native) => Some(native),
            Implementations::Gpu(_) => None,
        }
    }
}

/// A compiled variant of a kernel.
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
