//! y = f(x): neg, exp, log, sqrt, rsqrt, sin, cos, abs, square, relu, sigmoid, tanh, silu, gelu (both), erf, log1p,
//! expm1, softplus, logSigmoid, round, floor, ceil, trunc, sign; isFinite, which returns i32.
//!
//! Backward: one pass over d_out and the saved x or y, whichever gives the simpler derivative. Step functions (round to
//! sign) have a gradient of zeros, as in PyTorch.

#[cfg(test)]
mod plain;
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
enum From {
    /// The derivative is 0.
    Zero,
    Nothing(Function),
    Input(Function),
    Output(Function),
}

impl Unary {
    fn derivative(&self) -> From {
        use Function::*;
        match self.0 {
            Copy => From::Nothing(Copy),
            Neg => From::Nothing(Neg),
            Exp => From::Output(Mul),
            Log => From::Input(Div),
            Sqrt => From::Output(SqrtBackward),
            Rsqrt => From::Output(RsqrtBackward),
            Sin => From::Input(SinBackward),
            Cos => From::Input(CosBackward),
            Abs => From::Input(AbsBackward),
            Square => From::Input(SquareBackward),
            Relu => From::Output(ReluBackward),
            Sigmoid => From::Output(SigmoidBackward),
            Tanh => From::Output(TanhBackward),
            Silu => From::Input(SiluBackward),
            Gelu => From::Input(GeluBackward),
            GeluTanh => From::Input(GeluTanhBackward),
            Erf => From::Input(ErfBackward),
            Log1p => From::Input(Log1pBackward),
            Expm1 => From::Input(Expm1Backward),
            Softplus => From::Input(SoftplusBackward),
            LogSigmoid => From::Input(LogSigmoidBackward),
            Round | Floor | Ceil | Trunc | Sign => From::Zero,
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
        let dtype = if self.0.makes_indices() { DType::I32 } else { DType::F32 };
        Ok(vec![Spec { shape: inputs[0].shape.clone(), dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        map(cx, self.0, inputs, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        if self.0.makes_indices() {
            return Gradient::Constant;
        }
        match self.derivative() {
            From::Zero | From::Nothing(_) => Gradient::reads(0, 0),
            From::Input(_) => Gradient::reads(1, 0),
            From::Output(_) => Gradient::reads(0, 1),
        }
    }

    fn is_remade(&self) -> bool {
        !self.0.makes_indices() && matches!(self.derivative(), From::Input(_))
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let d_x = cx.empty(d.shape.clone(), DType::F32)?;
        match self.derivative() {
            From::Zero => cx.zero(&d_x),
            From::Nothing(f) => map(cx, f, &[d], &d_x)?,
            From::Input(f) => map(cx, f, &[d, pass.input(0)], &d_x)?,
            From::Output(f) => map(cx, f, &[d, pass.output(0)], &d_x)?,
        }
        Ok(vec![Some(d_x)])
    }
}
