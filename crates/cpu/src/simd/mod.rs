//! The arithmetic of native kernels: functions that vectorise, compiled for each instruction set.
//!
//! `vectorised! { fn name(…) { … S::fma(a, b, c) … } }` compiles its body for each instruction set and calls the one of
//! the process's level; functions that it calls must be `#[inline(always)]`. `compiled!` returns the body for a level
//! without calling it, for kernel tables and for products of pairs. `S` is an `Isa`; its `Lanes` are for loops that
//! control register use.

#[cfg(target_arch = "x86_64")]
pub mod amx;
mod dispatch;
mod function;
mod isa;
mod lanes;
pub mod level;
mod row;
#[cfg(test)]
mod tests;
mod trigonometric;
mod words;
mod zip;

pub use function::{erf, exp, exp_or_zero, expm1, log, log1p, sigmoid, silu, silu_backward, tanh};
#[cfg(target_arch = "x86_64")]
pub use isa::{Amx, Avx2, Avx512, Avx512Bf16};
pub use isa::{Baseline, Fma, Isa};
pub use lanes::{Lanes, Plain};
pub use level::{Level, level};
pub use row::{dot, log_sum, max, min, sum, sum_by};
pub use trigonometric::{NEAR, cos_far, cos_near, sin_far, sin_near};
pub use words::Words;
pub use zip::Zip;

#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub use dispatch::select_body;
pub use dispatch::{compiled, vectorised};
