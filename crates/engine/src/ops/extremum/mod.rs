//! y = the maximum or minimum of x over one dimension, or over all; NaN if any element is NaN.
//!
//! Shapes: x any, with at least one element to choose from; y without the dimension, or a scalar. f32 or i32.
//! Backward, as in PyTorch: over a dimension, d_out goes to the first of equals (`max`); over all, or if the dimension
//! stands for several (`amax`), equals share it evenly. Saved: x, and y if the gradient is shared.

#[cfg(test)]
pub mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::reduce::{Reduction, arg_extremum, place_at_index, reduce};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::{remove_dim, split_around};

pub use crate::kernels::reduce::Extreme;

/// Over `dim`, or over every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extremum {
    pub extreme: Extreme,
    pub dim: Option<usize>,
    /// Whether equals also share the gradient over a dimension.
    pub shared: bool,
}

impl Extremum {
    fn is_shared(&self) -> bool {
        self.shared || self.dim.is_none()
    }
}

/// Checks that there is an extreme.
///
/// # Errors
/// `ERR_DTYPE` unless x is f32 or i32, `ERR_SHAPE_MISMATCH` if there is nothing to choose from.
pub fn check(op: &str, x: &Spec, dim: Option<usize>) -> Result<()> {
    if !matches!(x.dtype, DType::F32 | DType::I32) {
        fail!(Dtype, "{op}: takes f32 or i32, not {}; convert with to(\"f32\")", x.dtype);
    }
    if split_around(&x.shape, dim)[1] == 0 {
        fail!(ShapeMismatch, "{op}: there is nothing to choose from in shape {}", x.shape);
    }
    Ok(())
}

impl Op for Extremum {
    fn name(&self) -> &'static str {
        match self.extreme {
            Extreme::Max => "max",
            Extreme::Min => "min",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let shape = remove_dim(self.name(), &inputs[0].shape, self.dim)?;
        check(self.name(), inputs[0], self.dim)?;
        Ok(vec![Spec { shape, dtype: inputs[0].dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        reduce(cx, self.extreme.reduction(), inputs[0], split_around(&inputs[0].shape, self.dim), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(1, self.is_shared() as u32)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let x = pass.input(0);
        let space = split_around(&x.shape, self.dim);
        let d_x = cx.empty(x.shape.clone(), DType::F32)?;
        if !self.is_shared() {
            let index = cx.empty(d.shape.clone(), DType::I32)?;
            arg_extremum(cx, self.extreme, x, space, &index)?;
            place_at_index(cx, &index, d, space, &d_x)?;
            return Ok(vec![Some(d_x)]);
        }
        let [outer, _, inner] = space;
        let seen = |v: &Value| v.reshape([outer, v.size() / (outer * inner).max(1), inner]);
        let [x, y, d] = [seen(x), seen(pass.output(0)), seen(d)];
        let same = cx.empty(x.shape.clone(), DType::F32)?;
        map(cx, Function::Same, &[&x, &y], &same)?;
        let [count, share] = [cx.empty(d.shape.clone(), DType::F32)?, cx.empty(d.shape.clone(), DType::F32)?];
        reduce(cx, Reduction::Sum, &same, space, &count)?;
        map(cx, Function::Div, &[&d, &count], &share)?;
        map(cx, Function::Mul, &[&same, &share], &d_x.reshape(x.shape.clone()))?;
        Ok(vec![Some(d_x)])
    }
}
