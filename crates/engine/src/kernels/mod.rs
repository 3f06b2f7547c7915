//! Kernel families. A family has one computation, in WGSL and natively, and the plan that launches it.

pub mod attention;
pub mod cast;
pub mod conv;
pub mod copy;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod fill;
pub mod flip;
pub mod gather;
pub mod gemm;
pub mod norm;
pub mod pad;
pub mod pool;
pub mod recurrence;
pub mod reduce;
pub mod rotary;
pub mod sample;
pub mod scan;
pub mod softmax;
pub mod sort;

use crate::kernel::Kernel;

/// Every kernel of the families, for validation of all that a plan can return; optimizers list theirs in
/// `optim::kernels`.
pub fn list_kernels() -> Vec<&'static Kernel> {
    #[rustfmt::skip]
    let families = [
        attention::KERNELS,
        cast::KERNELS,
        conv::KERNELS,
        copy::KERNELS,
        cross_entropy::KERNELS,
        dropout::KERNELS,
        elementwise::KERNELS,
        embedding::KERNELS,
        fill::KERNELS,
        flip::KERNELS,
        gather::KERNELS,
        gemm::KERNELS,
        norm::KERNELS,
        pad::KERNELS,
        pool::KERNELS,
        recurrence::KERNELS,
        reduce::KERNELS,
        rotary::KERNELS,
        sample::KERNELS,
        scan::KERNELS,
        softmax::KERNELS,
        sort::KERNELS,
    ];
    families.concat()
}

/// Every family with autotuning.
pub const TUNED: &[&crate::tune::Family] = &[&gemm::tuned::FAMILY];

#[cfg(test)]
mod tests;
