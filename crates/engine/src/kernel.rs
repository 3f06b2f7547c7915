//! What a kernel is: one computation, written twice (WGSL and native), with one binding order.

use crate::device::cpu::CpuLaunch;
use crate::dtype::DType;

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

/// Type of a scalar, as the shader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    U32(&'static str),
    F32(&'static str),
}

/// Choices that are compiled into a kernel; their meaning is the kernel's own.
pub type Params = [u32; 4];

/// A kernel: its interface, its WGSL body and its CPU twin.
///
/// The WGSL body defines `fn kernel(group: u32, lane: u32)`; `wgsl::module` puts the
/// declarations before it: the scalars as `p.<name>`, `load_<binding>(i)` and
/// `store_<binding>(i, v)` for every binding whatever its storage type, `THREADS`,
/// `is_finite`, `is_nan`. Scalars and bindings together are at most 31.
pub struct Kernel {
    pub name: &'static str,
    pub bindings: &'static [(&'static str, Access)],
    pub scalars: &'static [Scalar],
    pub wgsl: fn(Params) -> String,
    pub cpu: fn(&CpuLaunch),
    /// Every parameter set and storage types that a plan can return, for validation.
    pub variants: fn() -> Vec<Variant>,
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
