//! y = f(x): neg, exp, log, sqrt, rsqrt, sin, cos, abs, square, relu, sigmoid, tanh, silu, gelu (both), erf, log1p,
//! expm1, softplus, logSigmoid, round, floor, ceil, trunc, sign; isFinite, which returns i32.
//!
//! Backward: one pass over d_out and the saved x or y, whichever gives the simpler derivative. Step functions (round to
//! sign) have a gradient of zeros, as in PyTorch.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map};
use crate::op::{Backward, Gradient, Gradients, Op};

/// A function of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unary(pub Function);

/// The input of the derivative in addition to d_out.
enum DerivativeInput {
    /// The derivative is 0.
    Zero,
    Nothing(Function),
    Input(Function),
    Output(Function),
}

impl Unary {
    fn derivative(&self) -> DerivativeInput {
        use Function::*;
        match self.0 {
            Copy => DerivativeInput::Nothing(Copy),
            Neg => DerivativeInput::Nothing(Neg),
            Exp => DerivativeInput::Output(Mul),
            Log => DerivativeInput::Input(Div),
            Sqrt => DerivativeInput::Output(SqrtBackward),
            Rsqrt => DerivativeInput::Output(RsqrtBackward),
            Sin => DerivativeInput::Input(SinBackward),
            Cos => DerivativeInput::Input(CosBackward),
            Abs => DerivativeInput::Input(AbsBackward),
            Square => DerivativeInput::Input(SquareBackward),
            Relu => DerivativeInput::Output(ReluBackward),
            Sigmoid => DerivativeInput::Output(SigmoidBackward),
            Tanh => DerivativeInput::Output(TanhBackward),
            Silu => DerivativeInput::Input(SiluBackward),
            Gelu => DerivativeInput::Input(GeluBackward),
            GeluTanh => DerivativeInput::Input(GeluTanhBackward),
            Erf => DerivativeInput::Input(ErfBackward),
            Log1p => DerivativeInput::Input(Log1pBackward),
            Expm1 => DerivativeInput::Input(Expm1Backward),
            Softplus => DerivativeInput::Input(SoftplusBackward),
            LogSigmoid => DerivativeInput::Input(LogSigmoidBackward),
            Round | Floor | Ceil | Trunc | Sign => DerivativeInput::Zero,
            other => unreachable!("{} is not a function of one operand", other.name()),
        }
    }
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        if !inputs[0].dtype.is_float() {
            fail!(Dtype, "{}: takes floats, not {}; convert with to(\"f32\")", self.name(), inputs[0].dtype);
        }
        let dtype = if self.0.returns_i32() { DType::I32 } else { DType::F32 };
        Ok(vec![Spec { shape: inputs[0].shape.clone(), dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        map(cx, self.0, inputs, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        if self.0.returns_i32() {
            return Gradient::Constant;
        }
        match self.derivative() {
            DerivativeInput::Zero | DerivativeInput::Nothing(_) => Gradient::reads(0, 0),
            DerivativeInput::Input(_) => Gradient::reads(1, 0),
            DerivativeInput::Output(_) => Gradient::reads(0, 1),
        }
    }

    fn is_recomputed(&self) -> bool {
        !self.0.returns_i32() && matches!(self.derivative(), DerivativeInput::Input(_))
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let d_x = cx.empty(d.shape.clone(), DType::F32)?;
        match self.derivative() {
            DerivativeInput::Zero => cx.zero(&d_x),
            DerivativeInput::Nothing(f) => map(cx, f, &[d], &d_x)?,
            DerivativeInput::Input(f) => map(cx, f, &[d, pass.input(0)], &d_x)?,
            DerivativeInput::Output(f) => map(cx, f, &[d, pass.output(0)], &d_x)?,
        }
        Ok(vec![Some(d_x)])
    }
}
