//! The functions, each in WGSL and natively.

use std::cmp::Ordering;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use lowrank_cpu::simd::{
    Fma, NEAR, cos_far, cos_near, erf, exp, expm1, log, log1p, sigmoid, silu, silu_backward, sin_far,
    sin_near, tanh, vectorised,
};

use crate::dtype::DType;
use crate::kernel::shader::TRIGONOMETRIC;

macro_rules! functions {
    ($($name:ident, $label:literal, ($($operand:ident),+), $wgsl:expr, $native:expr $(, |$y:ident, $x:pat_param| $fix_up:expr)?;)*) => {
        /// A function of one to three operands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Function { $($name),* }

        impl Function {
            pub const ALL: &[Function] = &[$(Function::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Function::$name => $label),* }
            }

            pub fn operands(self) -> usize {
                match self { $(Function::$name => [$(stringify!($operand)),+].len()),* }
            }

            /// The body of `fn f(a, b, c) -> f32`.
            pub fn wgsl(self) -> &'static str {
                match self { $(Function::$name => $wgsl),* }
            }

            /// The loop over contiguous operands.
            pub(super) fn native(self) -> Loop {
                match self { $(Function::$name => map_loop::<native::$name>),* }
            }
        }

        /// The native functions. Each has a type, so that its loop is compiled separately with the function inlined.
        mod native {
            use super::*;
            $(
                pub struct $name;
                impl Native for $name {
                    #[inline(always)]
                    fn evaluate<S: Fma>(x: [f32; 3]) -> f32 {
                        let [$($operand),*, ..] = x;
                        $native
                    }
                    $(
                        #[inline(always)]
                        fn fix_up<S: Fma>($y: &mut [f32], $x: [&[f32]; 3]) {
                            $fix_up
                        }
                    )?
                }
            )*
        }
    };
}

/// A function of x = [a, b, c]; it reads only as many as it has operands.
trait Native {
    fn evaluate<S: Fma>(x: [f32; 3]) -> f32;

    /// Corrects the elements that the branch-free `at` cannot compute; called after it on the same elements.
    #[inline(always)]
    fn fix_up<S: Fma>(_y: &mut [f32], _x: [&[f32]; 3]) {}
}

/// y[i] = f(x[0][i], x[1][i], x[2][i]); all operands have y's length, including those that f does not read.
pub(super) type Loop = fn(y: &mut [f32], x: [&[f32]; 3]);

vectorised! {
    fn map_loop[F: Native](y: &mut [f32], x: [&[f32]; 3]) {
        let n = y.len();
        // `x.map` would be compiled again for each function and instruction set.
        let (y, a, b, c) = (&mut y[..n], &x[0][..n], &x[1][..n], &x[2][..n]);
        for i in 0..n {
            y[i] = F::evaluate::<S>([a[i], b[i], c[i]]);
        }
        F::fix_up::<S>(y, [a, b, c]);
    }
}

impl Function {
    /// Whether y is i32: 1 for true, 0 for false.
    pub fn returns_i32(self) -> bool {
        matches!(
            self,
            Function::Eq
                | Function::Ne
                | Function::Lt
                | Function::Le
                | Function::Gt
                | Function::Ge
                | Function::IsFinite
        )
    }

    /// The WGSL operator of a comparison.
    pub fn relation(self) -> Option<&'static str> {
        match self {
            Function::Eq => Some("=="),
            Function::Ne => Some("!="),
            Function::Lt => Some("<"),
            Function::Le => Some("<="),
            Function::Gt => Some(">"),
            Function::Ge => Some(">="),
            _ => None,
        }
    }

    /// The result of a comparison for integers in this order.
    pub(super) fn compare(self, order: Ordering) -> bool {
        match self {
            Function::Eq => order.is_eq(),
            Function::Ne => order.is_ne(),
            Function::Lt => order.is_lt(),
            Function::Le => order.is_le(),
            Function::Gt => order.is_gt(),
            Function::Ge => order.is_ge(),
            _ => unreachable!("{} compares nothing", self.name()),
        }
    }

    /// Whether NaN in any operand gives NaN in y.
    pub fn propagates_nan(self) -> bool {
        !self.returns_i32()
            && !self.takes_condition()
            && !matches!(self, Function::Same | Function::Inside | Function::Sign)
    }

    /// Whether the first operand is a condition, f32 or i32: true unless it is ±0, NaN included.
    pub fn takes_condition(self) -> bool {
        matches!(self, Function::Where | Function::WhereBackward | Function::WhereBackwardOther)
    }

    /// Whether operands may be broadcast to y's shape; otherwise they have y's size or one element.
    pub fn can_broadcast(self) -> bool {
        use Function::*;
        matches!(
            self,
            Copy | Add
                | Sub
                | Mul
                | Div
                | Pow
                | Maximum
                | Minimum
                | Eq
                | Ne
                | Le
                | Ge
                | Lt
                | Gt
                | Same
                | DivBackwardB
                | PowBackwardA
                | PowBackwardB
                | MaximumBackward
                | MinimumBackward
                | Where
                | WhereBackward
                | WhereBackwardOther
        )
    }

    /// Whether there is a variant with four elements per invocation. There is none for clamp, since its bounds are
    /// single numbers, and for conditions and comparisons, since they may be i32.
    pub fn has_vector_variant(self) -> bool {
        !self.returns_i32() && !self.takes_condition() && !matches!(self, Function::Clamp | Function::Inside)
    }

    /// The WGSL that the body calls in addition to `PRELUDE`.
    pub fn prelude(self) -> &'static str {
        match self {
            Function::Sin | Function::Cos | Function::SinBackward | Function::CosBackward => TRIGONOMETRIC,
            Function::Log1p | Function::Softplus | Function::LogSigmoid => LOG1P,
            _ => "",
        }
    }

    /// The storage types of the last operand that have compiled variants.
    pub fn inputs(self) -> &'static [DType] {
        match self {
            // For the norms of weights in half storage.
            Function::Square | Function::SquareBackward => &[DType::F32, DType::F16, DType::BF16],
            Function::IsFinite => &[DType::F32],
            comparison if comparison.relation().is_some() => &[DType::F32, DType::I32],
            _ => &[DType::F32],
        }
    }
}

functions! {
    Copy, "copy", (a), "return a;", a;
    Neg, "neg", (a), "return -a;", -a;
    Exp, "exp", (a), "return exp(a);", exp::<S>(a);
    Log, "log", (a),
        "if a < 0.0 { return nan(); } if a == 0.0 { return -infinity(); } if !is_finite(a) { return a; } return log(a);",
        log::<S>(a);
    Sqrt, "sqrt", (a), "if a < 0.0 { return nan(); } return sqrt(a);", a.sqrt();
    Abs, "abs", (a), "return abs(a);", a.abs();
    Relu, "relu", (a), "return max(a, 0.0);", if a < 0.0 { 0.0 } else { a };
    Sigmoid, "sigmoid", (a), "return sigmoid(a);", sigmoid::<S>(a);
    Tanh, "tanh", (a), "return tanh_(a);", tanh::<S>(a);
    Silu, "silu", (a), "return a * sigmoid(a);", silu::<S>(a);
    Gelu, "gelu", (a), "return 0.5 * a * (1.0 + erf(a * 0.70710678));",
        0.5 * a * (1.0 + erf::<S>(a * FRAC_1_SQRT_2));
    GeluTanh, "gelu_tanh", (a),
        "return 0.5 * a * (1.0 + tanh_(0.79788456 * fma(0.044715 * a * a, a, a)));",
        a * gelu_gate::<S>(a);
    Rsqrt, "rsqrt", (a),
        "if a < 0.0 { return nan(); } if a == 0.0 { return infinity(); } if !is_finite(a) { return 0.0; } return 1.0 / sqrt(a);",
        1.0 / a.abs().sqrt() * if a < 0.0 { f32::NAN } else { 1.0 };
    Sin, "sin", (a), "return sin_(a);", sin_near::<S>(a), |y, [a, ..]| fix_far_elements(y, a, |i| sin_far::<S>(a[i]));
    Cos, "cos", (a), "return cos_(a);", cos_near::<S>(a), |y, [a, ..]| fix_far_elements(y, a, |i| cos_far::<S>(a[i]));
    IsFinite, "isFinite", (a), "return f32(is_finite(a));", a.is_finite() as u32 as f32;
    Square, "square", (a), "return a * a;", a * a;
    // Near 0 by the first terms of the series: a device may flush the factors of a rational form to 0.
    Erf, "erf", (a), "if abs(a) < 1e-4 { return 1.1283792 * a; } return erf(a);", erf::<S>(a);
    Log1p, "log1p", (a),
        "if a < -1.0 { return nan(); } if a == -1.0 { return -infinity(); } if !is_finite(a) { return a; } if abs(a) < 1e-4 { return fma(-0.5 * a, a, a); } return log1p_(a);",
        log1p::<S>(a);
    // The Taylor series where eˣ − 1 cancels.
    Expm1, "expm1", (a),
        "if abs(a) >= 0.5 { return exp(a) - 1.0; }
         var t = 2.7557319e-6;
         t = fma(t, a, 2.4801587e-5); t = fma(t, a, 1.9841270e-4); t = fma(t, a, 1.3888889e-3);
         t = fma(t, a, 8.3333333e-3); t = fma(t, a, 4.1666667e-2); t = fma(t, a, 1.6666667e-1); t = fma(t, a, 0.5);
         return fma(a * a, t, a);",
        expm1::<S>(a);
    Softplus, "softplus", (a), "return max(a, 0.0) + log1p_(exp(-abs(a)));",
        { let rest = log1p::<S>(exp::<S>(-a.abs())); if a < 0.0 { rest } else { a + rest } };
    LogSigmoid, "logSigmoid", (a), "return min(a, 0.0) - log1p_(exp(-abs(a)));",
        { let rest = log1p::<S>(exp::<S>(-a.abs())); if a > 0.0 { -rest } else { a - rest } };
    // Half to even.
    Round, "round", (a), "return round(a);", a.round_ties_even();
    Floor, "floor", (a), "return floor(a);", a.floor();
    Ceil, "ceil", (a), "return ceil(a);", a.ceil();
    Trunc, "trunc", (a), "return trunc(a);", a.trunc();
    // 0 for NaN, as in PyTorch.
    Sign, "sign", (a), "if is_nan(a) { return 0.0; } return sign(a);",
        (a > 0.0) as u32 as f32 - (a < 0.0) as u32 as f32;

    Add, "add", (a, b), "return a + b;", a + b;
    Sub, "sub", (a, b), "return a - b;", a - b;
    Mul, "mul", (a, b), "return a * b;", a * b;
    Div, "div", (a, b), "return a / b;", a / b;
    Pow, "pow", (a, b), "return pow_(a, b);", a.powf(b);
    Maximum, "maximum", (a, b), "return max(a, b);",
        { let m = if a > b { a } else { b }; if a.is_nan() { a } else { m } };
    Minimum, "minimum", (a, b), "return min(a, b);",
        { let m = if a < b { a } else { b }; if a.is_nan() { a } else { m } };
    Eq, "eq", (a, b), "return f32(!is_nan(a) && !is_nan(b) && a == b);", (a == b) as u32 as f32;
    Ne, "ne", (a, b), "return f32(is_nan(a) || is_nan(b) || a != b);", (a != b) as u32 as f32;
    Le, "le", (a, b), "return f32(!is_nan(a) && !is_nan(b) && a <= b);", (a <= b) as u32 as f32;
    Ge, "ge", (a, b), "return f32(!is_nan(a) && !is_nan(b) && a >= b);", (a >= b) as u32 as f32;
    Lt, "lt", (a, b), "return f32(!is_nan(a) && !is_nan(b) && a < b);", (a < b) as u32 as f32;
    Gt, "gt", (a, b), "return f32(!is_nan(a) && !is_nan(b) && a > b);", (a > b) as u32 as f32;
    // 1 where they are equal or both NaN, as f32.
    Same, "same", (a, b),
        "if is_nan(a) || is_nan(b) { return f32(is_nan(a) && is_nan(b)); } return f32(a == b);",
        (a == b || (a.is_nan() && b.is_nan())) as u32 as f32;
    // d of y = f(x): the first operand is d, the second x or y.
    SqrtBackward, "sqrt backward", (d, y), "return 0.5 * a / b;", 0.5 * d / y;
    RsqrtBackward, "rsqrt backward", (d, y), "return -0.5 * a * b * b * b;", -0.5 * d * y * y * y;
    SinBackward, "sin backward", (d, x), "return a * cos_(b);", d * cos_near::<S>(x),
        |y, [d, x, _]| fix_far_elements(y, x, |i| d[i] * cos_far::<S>(x[i]));
    CosBackward, "cos backward", (d, x), "return -a * sin_(b);", -d * sin_near::<S>(x),
        |y, [d, x, _]| fix_far_elements(y, x, |i| -d[i] * sin_far::<S>(x[i]));
    AbsBackward, "abs backward", (d, x), "return a * sign(b);", if x == 0.0 { 0.0 } else { d * x.signum() };
    ReluBackward, "relu backward", (d, y), "return select(0.0, a, b > 0.0);", if y > 0.0 { d } else { 0.0 };
    SigmoidBackward, "sigmoid backward", (d, y), "return a * b * (1.0 - b);", d * y * (1.0 - y);
    TanhBackward, "tanh backward", (d, y), "return a * (1.0 - b * b);", d * (1.0 - y * y);
    SiluBackward, "silu backward", (d, x), "let s = sigmoid(b); return a * s * (1.0 + b * (1.0 - s));",
        silu_backward::<S>(d, x);
    GeluBackward, "gelu backward", (d, x),
        "return a * (0.5 * (1.0 + erf(b * 0.70710678)) + b * 0.39894228 * exp(-0.5 * b * b));",
        d * (0.5 * (1.0 + erf::<S>(x * FRAC_1_SQRT_2)) + x * 0.398_942_3 * exp::<S>(-0.5 * x * x));
    GeluTanhBackward, "gelu_tanh backward", (d, x),
        "let t = tanh_(0.79788456 * fma(0.044715 * b * b, b, b));
         return a * (0.5 * (1.0 + t) + 0.5 * b * (1.0 - t * t) * 0.79788456 * fma(0.134145 * b, b, 1.0));",
        {
            let s = gelu_gate::<S>(x);
            d * s * S::fma(x * (1.0 - s), 1.595_769_1 * S::fma(0.134_145 * x, x, 1.0), 1.0)
        };
    SquareBackward, "square backward", (d, x), "return 2.0 * a * b;", 2.0 * d * x;
    ErfBackward, "erf backward", (d, x), "return a * 1.1283792 * exp(-b * b);",
        d * FRAC_2_SQRT_PI * exp::<S>(-x * x);
    Log1pBackward, "log1p backward", (d, x), "return a / (1.0 + b);", d / (1.0 + x);
    Expm1Backward, "expm1 backward", (d, x), "return a * exp(b);", d * exp::<S>(x);
    SoftplusBackward, "softplus backward", (d, x), "return a * sigmoid(b);", d * sigmoid::<S>(x);
    LogSigmoidBackward, "logSigmoid backward", (d, x), "return a * sigmoid(-b);", d * sigmoid::<S>(-x);
    // silu(gate) · up, the product of a gated MLP.
    SiluMul, "silu_mul", (gate, up), "return a * sigmoid(a) * b;", silu::<S>(gate) * up;

    // d, a, b of y = a / b.
    DivBackwardB, "div backward", (d, a, b), "return -a * b / (c * c);", -d * a / (b * b);
    PowBackwardA, "pow backward", (d, a, b), "if c == 0.0 { return 0.0; } return a * c * pow_(b, c - 1.0);",
        if b == 0.0 { 0.0 } else { d * b * a.powf(b - 1.0) };
    PowBackwardB, "pow backward", (d, a, b), "if b == 0.0 { return 0.0; } return a * pow_(b, c) * log(b);",
        if a == 0.0 { 0.0 } else { d * a.powf(b) * a.ln() };
    // A tie gives half of the gradient to each operand, as in PyTorch.
    MaximumBackward, "maximum backward", (d, x, other),
        "return a * select(select(0.0, 0.5, b == c), 1.0, b > c);",
        { let tie = if x == other { 0.5 * d } else { 0.0 }; if x > other { d } else { tie } };
    MinimumBackward, "minimum backward", (d, x, other),
        "return a * select(select(0.0, 0.5, b == c), 1.0, b < c);",
        { let tie = if x == other { 0.5 * d } else { 0.0 }; if x < other { d } else { tie } };
    Clamp, "clamp", (x, low, high), "return min(max(a, b), c);",
        { let y = if x < low { low } else { x }; if y > high { high } else { y } };
    // 1 inside the bounds, both included.
    Inside, "clamp backward", (x, low, high), "return f32(!is_nan(a) && a >= b && a <= c);",
        (x >= low && x <= high) as u32 as f32;
    Where, "where", (condition, a, b), "return select(c, b, holds(a));", if condition != 0.0 { a } else { b };
    WhereBackward, "where backward", (condition, d), "return select(0.0, b, holds(a));",
        if condition != 0.0 { d } else { 0.0 };
    WhereBackwardOther, "where backward", (condition, d), "return select(b, 0.0, holds(a));",
        if condition != 0.0 { 0.0 } else { d };
    // d, gate, up of silu_mul: the gradient of gate.
    SiluMulBackward, "silu_mul backward", (d, gate, up),
        "let s = sigmoid(b); return a * c * s * (1.0 + b * (1.0 - s));", silu_backward::<S>(d * up, gate);
}

/// Functions that WGSL lacks, or does not specify at the ends of their range.
pub const PRELUDE: &str = "
fn holds(condition: f32) -> bool { return (bitcast<u32>(condition) & 0x7fffffffu) != 0u; }
fn infinity() -> f32 { return bitcast<f32>(p.size - p.size + 0x7f800000u); }
fn sigmoid(x: f32) -> f32 {
  // e^-|x| never overflows.
  let e = exp(-abs(x));
  return select(e / (1.0 + e), 1.0 / (1.0 + e), x >= 0.0);
}
fn tanh_(x: f32) -> f32 { return tanh(clamp(x, -15.0, 15.0)); }
// Rational approximation of erf on [-4, 4], beyond which it rounds to 1 (the form used by Eigen and XLA).
fn erf(v: f32) -> f32 {
  if abs(v) >= 4.0 { return sign(v); }
  let x = v;
  let q = x * x;
  var n = -2.72614225801306e-10;
  n = fma(n, q, 2.77068142495902e-08); n = fma(n, q, -2.10102402082508e-06);
  n = fma(n, q, -5.69250639462346e-05); n = fma(n, q, -7.34990630326855e-04);
  n = fma(n, q, -2.95459980854025e-03); n = fma(n, q, -1.60960333262415e-02);
  var d = -1.45660718464996e-05;
  d = fma(d, q, -2.13374055278905e-04); d = fma(d, q, -1.68282697438203e-03);
  d = fma(d, q, -7.37332916720468e-03); d = fma(d, q, -1.42647390514189e-02);
  return x * n / d;
}
fn pow_(a: f32, b: f32) -> f32 {
  if b == 0.0 { return 1.0; }
  if a > 0.0 { return pow(a, b); }
  if a == 0.0 { return select(infinity(), 0.0, b > 0.0); }
  // A negative base has a power only for whole exponents.
  if floor(b) != b { return nan(); }
  let m = pow(-a, b);
  return select(m, -m, (abs(b) % 2.0) == 1.0);
}
";

/// ln(1 + x): near 0 by 2 artanh(x / (2 + x)), since WGSL bounds only the absolute error of log near 1.
const LOG1P: &str = "
fn log1p_(x: f32) -> f32 {
  if x <= -0.3 || x >= 0.42 { return log(1.0 + x); }
  let s = x / (2.0 + x);
  let z = s * s;
  var t = 0.09090909;
  t = fma(t, z, 0.11111111); t = fma(t, z, 0.14285714); t = fma(t, z, 0.2); t = fma(t, z, 0.33333333);
  return 2.0 * fma(s * z, t, s);
}
";

/// y[i] = f(i) if x[i] is too large for a reduction in f64, or not finite.
#[inline(always)]
fn fix_far_elements(y: &mut [f32], x: &[f32], f: impl Fn(usize) -> f32) {
    let all_near = x.iter().fold(true, |near, v| near & (v.abs() <= NEAR));
    if all_near {
        return;
    }
    for (i, v) in x.iter().enumerate() {
        if v.is_nan() || v.abs() > NEAR {
            y[i] = f(i);
        }
    }
}

/// ½ (1 + tanh u) for the tanh form of gelu, which equals sigmoid(2u): one exponential, and no cancellation where tanh
/// approaches −1.
#[inline(always)]
fn gelu_gate<S: Fma>(x: f32) -> f32 {
    sigmoid::<S>(1.595_769_1 * S::fma(0.044_715 * x * x, x, x))
}
