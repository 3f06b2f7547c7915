//! y = the maximum of x over one dimension, or over all; NaN where any is NaN.
//!
//! Shapes: x any, with at least one element to choose from; y without the dimension, or a scalar.
//! Backward, as in PyTorch: over a dimension, d_out goes to the first maximum; over all, it is
//! shared evenly by every element that equals it. Saved: x, and y over all.

#[cfg(test)]
pub mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::reduce::{Reduction, argmax, place, reduce};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::{split, without};
use crate::tensor::{Context, Spec, Value};

/// Maximum over `dim`, or over every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Max {
    pub dim: Option<usize>,
}

/// Refuses what has no maximum.
///
/// # Errors
/// `ERR_DTYPE` unless x is f32, `ERR_SHAPE_MISMATCH` when there is nothing to choose from.
pub fn check(op: &str, x: &Spec, dim: Option<usize>) -> Result<()> {
    if x.dtype != DType::F32 {
        fail!(Dtype, "{op}: takes f32, not {}; convert with to(\"f32\")", x.dtype);
    }
    if split(&x.shape, dim)[1] == 0 {
        fail!(ShapeMismatch, "{op}: there is nothing to choose from in shape {}", x.shape);
    }
    Ok(())
}

impl Op for Max {
    fn name(&self) -> &'static str {
        "max"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let shape = without(self.name(), &inputs[0].shape, self.dim)?;
        check(self.name(), inputs[0], self.dim)?;
        Ok(vec![Spec::f32(shape)])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        reduce(cx, Reduction::Max, inputs[0], split(&inputs[0].shape, self.dim), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(1, self.dim.is_none() as u32)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let x = pass.input(0);
        let space = split(&x.shape, self.dim);
        let d_x = cx.empty(x.shape.clone(), DType::F32)?;
        if self.dim.is_some() {
            let index = cx.empty(d.shape.clone(), DType::I32)?;
            argmax(cx, x, space, &index)?;
            place(cx, &index, d, space, &d_x)?;
            return Ok(vec![Some(d_x)]);
        }
        let same = cx.empty(x.shape.clone(), DType::F32)?;
        map(cx, Function::Same, &[x, pass.output(0)], &same)?;
        let [count, share] = [cx.empty([], DType::F32)?, cx.empty([], DType::F32)?];
        reduce(cx, Reduction::Sum, &same, space, &count)?;
        map(cx, Function::Div, &[d, &count], &share)?;
        map(cx, Function::Mul, &[&same, &share], &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
