//! y = a where the condition is not 0, b elsewhere, with broadcasting (`where`).
//!
//! Backward: d_out where the operand was selected, 0 elsewhere, summed over the operand's broadcast dimensions.
//! Saved: the condition.

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
use crate::ops::sum::sum_to;
use crate::shape::Shape;

/// Inputs: condition, a, b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where;

impl Op for Where {
    fn name(&self) -> &'static str {
        "where"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [condition, a, b] = inputs else { unreachable!("three inputs") };
        for x in [a, b] {
            if !x.dtype.is_float() {
                fail!(Dtype, "where: chooses between floats, not {}; convert with to(\"f32\")", x.dtype);
            }
        }
        let values = Shape::broadcast(self.name(), &a.shape, &b.shape)?;
        Ok(vec![Spec::f32(Shape::broadcast(self.name(), &condition.shape, &values)?)])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        map(cx, Function::Where, inputs, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b1, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let mut d_inputs = vec![None, None, None];
        let d = pass.d_out();
        for (i, function) in [(1, Function::WhereBackward), (2, Function::WhereBackwardOther)] {
            if pass.needs[i] {
                let full = cx.empty(d.shape.clone(), DType::F32)?;
                map(cx, function, &[pass.input(0), d], &full)?;
                d_inputs[i] = Some(sum_to(cx, full, &pass.input_specs[i].shape)?);
            }
        }
        Ok(d_inputs)
    }
}
