//! The functions: each as WGSL and natively, side by side.

use crate::dtype::DType;

macro_rules! functions {
    ($($name:ident, $label:literal, $operands:literal, $wgsl:expr, $native:expr;)*) => {
        /// A function of one to three operands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Function { $($name),* }

        impl Function {
            pub const ALL: &[Function] = &[$(Function::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Function::$name => $label),* }
            }

            pub fn operands(self) -> usize {
                match self { $(Function::$name => $operands),* }
            }

            /// The body of `fn f(a, b, c) -> f32`.
            pub fn wgsl(self) -> &'static str {
                match self { $(Function::$name => $wgsl),* }
            }

            pub fn native(self) -> Native {
                match self { $(Function::$name => $native),* }
            }
        }
    };
}

/// A native function by its number of operands.
#[derive(Clone, Copy)]
pub enum Native {
    F1(fn(f32) -> f32),
    F2(fn(f32, f32) -> f32),
    F3(fn(f32, f32, f32) -> f32),
}

use Native::{F1, F2, F3};

impl Function {
    /// Whether y is i32: 1 where true, 0 elsewhere.
    pub fn makes_indices(self) -> bool {
        matches!(self, Function::Eq | Function::Lt | Function::Gt)
    }

    /// Whether NaN in any operand is NaN in y.
    pub fn passes_nan(self) -> bool {
        !self.makes_indices()
            && !matches!(self, Function::Where | Function::WhereBackward | Function::WhereBackwardOther)
    }

    /// Storage types that an operand may have in a compiled form.
    pub fn inputs(self) -> &'static [DType] {
        &[DType::F32]
    }
}

functions! {
    Copy, "copy", 1, "return a;", F1(|a| a);
    Neg, "neg", 1, "return -a;", F1(|a| -a);
    Exp, "exp", 1, "return exp(a);", F1(f32::exp);
    Log, "log", 1,
        "if a < 0.0 { return nan(); } if a == 0.0 { return -infinity(); } if !is_finite(a) { return a; } return log(a);",
        F1(f32::ln);
    Sqrt, "sqrt", 1, "if a < 0.0 { return nan(); } return sqrt(a);", F1(f32::sqrt);
    Abs, "abs", 1, "return abs(a);", F1(f32::abs);
    Relu, "relu", 1, "return max(a, 0.0);", F1(|a| if a.is_nan() { a } else { a.max(0.0) });
    Sigmoid, "sigmoid", 1, "return sigmoid(a);", F1(sigmoid);
    Tanh, "tanh", 1, "return tanh_(a);", F1(f32::tanh);
    Silu, "silu", 1, "return a * sigmoid(a);", F1(|a| a * sigmoid(a));
    Gelu, "gelu", 1, "return 0.5 * a * (1.0 + erf(a * 0.70710678));",
        F1(|a| 0.5 * a * (1.0 + erf(a * std::f32::consts::FRAC_1_SQRT_2)));
    GeluTanh, "gelu_tanh", 1,
        "return 0.5 * a * (1.0 + tanh_(0.79788456 * fma(0.044715 * a * a, a, a)));",
        F1(|a| 0.5 * a * (1.0 + gelu_inner(a).tanh()));
    Square, "square", 1, "return a * a;", F1(|a| a * a);

    Add, "add", 2, "return a + b;", F2(|a, b| a + b);
    Sub, "sub", 2, "return a - b;", F2(|a, b| a - b);
    Mul, "mul", 2, "return a * b;", F2(|a, b| a * b);
    Div, "div", 2, "return a / b;", F2(|a, b| a / b);
    Pow, "pow", 2, "return pow_(a, b);", F2(f32::powf);
    Maximum, "maximum", 2, "return max(a, b);", F2(|a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) });
    Minimum, "minimum", 2, "return min(a, b);", F2(|a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { a.min(b) });
    Eq, "eq", 2, "return f32(!is_nan(a) && !is_nan(b) && a == b);", F2(|a, b| (a == b) as u32 as f32);
    Lt, "lt", 2, "return f32(!is_nan(a) && !is_nan(b) && a < b);", F2(|a, b| (a < b) as u32 as f32);
    Gt, "gt", 2, "return f32(!is_nan(a) && !is_nan(b) && a > b);", F2(|a, b| (a > b) as u32 as f32);
    // d of y = f(x): the first operand is d, the second x or y.
    SqrtBackward, "sqrt backward", 2, "return 0.5 * a / b;", F2(|d, y| 0.5 * d / y);
    AbsBackward, "abs backward", 2, "return a * sign(b);",
        F2(|d, x| if x == 0.0 { 0.0 } else { d * x.signum() });
    ReluBackward, "relu backward", 2, "return select(0.0, a, b > 0.0);", F2(|d, y| if y > 0.0 { d } else { 0.0 });
    SigmoidBackward, "sigmoid backward", 2, "return a * b * (1.0 - b);", F2(|d, y| d * y * (1.0 - y));
    TanhBackward, "tanh backward", 2, "return a * (1.0 - b * b);", F2(|d, y| d * (1.0 - y * y));
    SiluBackward, "silu backward", 2, "let s = sigmoid(b); return a * s * (1.0 + b * (1.0 - s));", F2(silu_backward);
    GeluBackward, "gelu backward", 2,
        "return a * (0.5 * (1.0 + erf(b * 0.70710678)) + b * 0.39894228 * exp(-0.5 * b * b));",
        F2(|d, x| {
            d * (0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * 0.398_942_3 * (-0.5 * x * x).exp())
        });
    GeluTanhBackward, "gelu_tanh backward", 2,
        "let t = tanh_(0.79788456 * fma(0.044715 * b * b, b, b));
         return a * (0.5 * (1.0 + t) + 0.5 * b * (1.0 - t * t) * 0.79788456 * fma(0.134145 * b, b, 1.0));",
        F2(|d, x| {
            let t = gelu_inner(x).tanh();
            d * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.797_884_6 * (0.134_145 * x * x + 1.0))
        });
    SquareBackward, "square backward", 2, "return 2.0 * a * b;", F2(|d, x| 2.0 * d * x);
    // silu(gate) · up, the product of a gated MLP.
    SiluMul, "silu_mul", 2, "return a * sigmoid(a) * b;", F2(|gate, up| gate * sigmoid(gate) * up);

    // d, a, b of y = a / b.
    DivBackwardB, "div backward", 3, "return -a * b / (c * c);", F3(|d, a, b| -d * a / (b * b));
    PowBackwardA, "pow backward", 3, "if c == 0.0 { return 0.0; } return a * c * pow_(b, c - 1.0);",
        F3(|d, a, b| if b == 0.0 { 0.0 } else { d * b * a.powf(b - 1.0) });
    PowBackwardB, "pow backward", 3, "if b == 0.0 { return 0.0; } return a * pow_(b, c) * log(b);",
        F3(|d, a, b| if a == 0.0 { 0.0 } else { d * a.powf(b) * a.ln() });
    // A tie gives half to each, as in PyTorch.
    MaximumBackward, "maximum backward", 3, "return a * select(select(0.0, 0.5, b == c), 1.0, b > c);",
        F3(|d, x, other| if x > other { d } else if x == other { 0.5 * d } else { 0.0 });
    MinimumBackward, "minimum backward", 3, "return a * select(select(0.0, 0.5, b == c), 1.0, b < c);",
        F3(|d, x, other| if x < other { d } else if x == other { 0.5 * d } else { 0.0 });
    Clamp, "clamp", 3, "return min(max(a, b), c);",
        F3(|x, low, high| if x.is_nan() { x } else { x.max(low).min(high) });
    // 1 inside the bounds, both included.
    Inside, "clamp backward", 3, "return f32(a >= b && a <= c);", F3(|x, low, high| (x >= low && x <= high) as u32 as f32);
    Where, "where", 3, "return select(c, b, a != 0.0);", F3(|condition, a, b| if condition != 0.0 { a } else { b });
    WhereBackward, "where backward", 2, "return select(0.0, b, a != 0.0);", F2(|condition, d| if condition != 0.0 { d } else { 0.0 });
    WhereBackwardOther, "where backward", 2, "return select(b, 0.0, a != 0.0);", F2(|condition, d| if condition != 0.0 { 0.0 } else { d });
    // d, gate, up of silu_mul: the gradient of gate.
    SiluMulBackward, "silu_mul backward", 3,
        "let s = sigmoid(b); return a * c * s * (1.0 + b * (1.0 - s));",
        F3(|d, gate, up| silu_backward(d * up, gate));
}

/// Functions that WGSL lacks, or does not promise at the ends of their range.
pub const PRELUDE: &str = "
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

fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

fn silu_backward(d: f32, x: f32) -> f32 {
    let s = sigmoid(x);
    d * s * (1.0 + x * (1.0 - s))
}

fn gelu_inner(x: f32) -> f32 {
    0.797_884_6 * (0.044_715 * x * x * x + x)
}

/// The same rational form as the shader's.
fn erf(v: f32) -> f32 {
    if v.abs() >= 4.0 {
        return v.signum();
    }
    let x = v;
    let q = x * x;
    let n =
        [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_599_8e-3, -1.609_603_3e-2]
            .iter()
            .fold(-2.726_142_3e-10f32, |n, c| n * q + c);
    let d = [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2]
        .iter()
        .fold(-1.456_607_2e-5f32, |d, c| d * q + c);
    x * n / d
}
