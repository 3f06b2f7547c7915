//! Kernel families: one computation each, in WGSL and natively, with the plan that launches it.

pub mod elementwise;
pub mod reduce;

use crate::kernel::Kernel;

/// Every kernel, for validation of all that a plan can return.
pub fn all() -> Vec<&'static Kernel> {
    [elementwise::KERNELS, reduce::KERNELS].concat()
}
