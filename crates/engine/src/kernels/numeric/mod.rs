//! The native kernels' arithmetic: functions that vectorise, compiled for each instruction set.
//!
//! `vectorised! { fn name(…) { … S::fma(a, b, c) … } }` compiles its body for AVX-512, AVX2 and the
//! baseline and calls the best that the processor has; what it calls must be `#[inline(always)]`.
//! `Lanes` are for the loops whose speed hangs on which registers hold what.

mod function;
mod isa;
mod lanes;
mod row;
#[cfg(test)]
mod tests;
mod trigonometric;

pub use function::{erf, exp, exp_or_zero, log, sigmoid, silu, silu_backward, tanh};
pub use isa::{Baseline, Fused, Isa, Level, level};
pub use lanes::{Lanes, Plain};
pub use row::{dot, log_sum, max, min, sum, sum_by};
pub use trigonometric::{NEAR, cos_far, cos_near, sin_far, sin_near};

/// WGSL: sums and marks over a workgroup.
pub const WORKGROUP: &str = include_str!("workgroup.wgsl");
/// WGSL: log-sum-exp a term at a time, with NaN and infinities kept as PyTorch keeps them.
pub const LOG_SUM: &str = include_str!("log_sum.wgsl");
/// WGSL: log-sum-exp over a workgroup; needs `WORKGROUP` and `LOG_SUM`.
pub const LOG_SUM_ROWS: &str = include_str!("log_sum_rows.wgsl");

/// WGSL: sin and cos of every number.
pub const TRIGONOMETRIC: &str = include_str!("trigonometric.wgsl");

pub(crate) use isa::vectorised;
