//! The reference: one function at a time, in f64.

use crate::dtype::DType;
use crate::kernels::elementwise::Function;
use crate::ops::checks::Array;

pub fn compute_reference(function: Function, x: &Array) -> Array {
    let y = x.map(|v| match function {
        Function::Copy => v,
        Function::Neg => -v,
        Function::Exp => v.exp(),
        Function::Log => v.ln(),
        Function::Sqrt => v.sqrt(),
        Function::Abs => v.abs(),
        Function::Square => v * v,
        Function::Relu if v.is_nan() => v,
        Function::Relu => v.max(0.0),
        Function::Sigmoid => 1.0 / (1.0 + (-v).exp()),
        Function::Tanh => v.tanh(),
        Function::Silu => v / (1.0 + (-v).exp()),
        Function::Gelu => 0.5 * v * (1.0 + erf(v / 2f64.sqrt())),
        Function::GeluTanh => {
            0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v)).tanh())
        }
        Function::Rsqrt => 1.0 / v.sqrt(),
        Function::Sin => libm::sin(v),
        Function::Cos => libm::cos(v),
        Function::Erf => erf(v),
        Function::Log1p => v.ln_1p(),
        Function::Expm1 => v.exp_m1(),
        Function::Softplus if v.is_nan() => v,
        Function::Softplus => v.max(0.0) + (-v.abs()).exp().ln_1p(),
        Function::LogSigmoid if v.is_nan() => v,
        Function::LogSigmoid => v.min(0.0) - (-v.abs()).exp().ln_1p(),
        Function::Round => v.round_ties_even(),
        Function::Floor => v.floor(),
        Function::Ceil => v.ceil(),
        Function::Trunc => v.trunc(),
        Function::Sign => (v > 0.0) as u32 as f64 - (v < 0.0) as u32 as f64,
        Function::IsFinite => v.is_finite() as u32 as f64,
        _ => unreachable!(),
    });
    Array { dtype: if function.returns_i32() { DType::I32 } else { DType::F32 }, ..y }
}

/// The Maclaurin series, which converges everywhere; above 6 erf is 1 in f64.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
