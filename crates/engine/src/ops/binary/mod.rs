//! y = f(a, b) with broadcasting: add, sub, mul, div, pow, maximum, minimum, eq, ne, lt, le, gt, ge.
//!
//! Shapes: NumPy's broadcasting. Backward: the derivative at the output's shape, summed over the broadcast dimensions
//! of an input. Saved: the operands that the derivative reads.

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
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};
use crate::ops::sum::sum_to;
use crate::shape::Shape;

/// A function of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binary(pub Function);

impl Op for Binary {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [a, b] = inputs else { unreachable!("two inputs") };
        if a.dtype == DType::I32 && b.dtype == DType::I32 && !self.0.returns_i32() {
            fail!(
                Dtype,
                "{}: both operands are i32; arithmetic is on floats, convert one with to(\"f32\")",
                self.name()
            );
        }
        let dtype = if self.0.returns_i32() { DType::I32 } else { DType::F32 };
        Ok(vec![Spec { shape: Shape::broadcast(self.name(), &a.shape, &b.shape)?, dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        map(cx, self.0, inputs, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        match self.0 {
            f if f.returns_i32() => Gradient::Constant,
            Function::Add | Function::Sub => Gradient::reads(0, 0),
            _ => Gradient::reads(0b11, 0),
        }
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        let inputs = match self.0 {
            Function::Add | Function::Sub => 0,
            // The gradient of each factor reads the other factor.
            Function::Mul => (needs[1] as u32) | (needs[0] as u32) << 1,
            Function::Div => (needs[1] as u32) | 0b10,
            _ => 0b11,
        };
        BackwardReads { inputs, outputs: 0 }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let mut d_inputs = vec![None, None];
        for i in [0, 1].into_iter().filter(|i| pass.needs[*i]) {
            let full = self.derivative(cx, pass, i, d)?;
            d_inputs[i] = Some(sum_to(cx, full, &pass.input_specs[i].shape)?);
        }
        Ok(d_inputs)
    }
}

impl Binary {
    /// The gradient of input `i` at the output's shape.
    fn derivative(&self, cx: &Rc<Context>, pass: &Backward, i: usize, d: &Value) -> Result<Value> {
        use Function::*;
        let make = |function, operands: &[&Value]| {
            let g = cx.empty(d.shape.clone(), DType::F32)?;
            map(cx, function, operands, &g)?;
            Ok(g)
        };
        match (self.0, i) {
            (Add, _) | (Sub, 0) => Ok(d.clone()),
            (Sub, _) => make(Neg, &[d]),
            (Mul, _) => make(Mul, &[d, pass.input(1 - i)]),
            (Div, 0) => make(Div, &[d, pass.input(1)]),
            _ => {
                let (a, b) = (pass.input(0), pass.input(1));
                match (self.0, i) {
                    (Div, _) => make(DivBackwardB, &[d, a, b]),
                    (Pow, 0) => make(PowBackwardA, &[d, a, b]),
                    (Pow, _) => make(PowBackwardB, &[d, a, b]),
                    (Maximum, 0) => make(MaximumBackward, &[d, a, b]),
                    (Maximum, _) => make(MaximumBackward, &[d, b, a]),
                    (Minimum, 0) => make(MinimumBackward, &[d, a, b]),
                    (Minimum, _) => make(MinimumBackward, &[d, b, a]),
                    _ => unreachable!("{} is not a differentiable function of two operands", self.name()),
                }
            }
        }
    }
}
