//! The native kernels' arithmetic: functions that vectorise, compiled for each instruction set.
//!
//! `vectorised! { fn name(…) { … S::fma(a, b, c) … } }` compiles its body for AVX-512, AVX2 and the
//! baseline and calls the best that the processor has; what it calls must be `#[inline(always)]`.
//! `Lanes` are for the loops whose speed hangs on which registers hold what.

mod dispatch;
mod function;
mod lanes;
pub mod level;
mod row;
#[cfg(test)]
mod tests;
mod trigonometric;

pub use dispatch::{Baseline, Fma, Fused};
pub use function::{erf, exp, exp_or_zero, log, sigmoid, silu, silu_backward, tanh};
pub use lanes::{Lanes, Plain};
pub use level::{Level, level};
pub use row::{dot, log_sum, max, min, sum, sum_by};
pub use trigonometric::{NEAR, cos_far, cos_near, sin_far, sin_near};

pub(crate) use dispatch::vectorised;
