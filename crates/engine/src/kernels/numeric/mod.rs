//! The native kernels' arithmetic: functions that vectorise, compiled for each instruction set.
//!
//! `vectorised! { fn name(…) { … S::fma(a, b, c) … } }` compiles its body for AVX-512, AVX2 and the
//! baseline and calls the best that the processor has; what it calls must be `#[inline(always)]`.

mod function;
mod isa;
mod row;
#[cfg(test)]
mod tests;

pub use function::{erf, exp, sigmoid, silu, silu_backward, tanh};
pub use isa::{Baseline, Fused, Isa, Level, level};
pub use row::{dot, max, sum, sum_by};

pub(crate) use isa::vectorised;
