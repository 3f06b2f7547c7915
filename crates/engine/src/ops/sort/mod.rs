//! The elements along one dimension, sorted, or the first of them, with their positions (torch.sort, torch.topk).
//!
//! Shapes: x f32 or i32; values (of x's dtype) and indices (i32) have x's shape with `count` for the dimension. The
//! sort is stable in both directions: equal elements keep their order. NaN is larger than all numbers; −0 equals 0.
//! Backward: d_values at their indices, 0 elsewhere. Saved: the indices.

#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::gather::scatter;
use crate::kernels::sort::sort;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::split_around;

/// The first `count` of `dim` in ascending or descending order. Outputs: values, indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub dim: usize,
    pub descending: bool,
    pub count: usize,
    /// The operation's name in errors.
    pub name: &'static str,
}

impl Op for Sort {
    fn name(&self) -> &'static str {
        self.name
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if !matches!(x.dtype, DType::F32 | DType::I32) {
            fail!(Dtype, "{}: takes f32 or i32, not {}; convert with to(\"f32\")", self.name, x.dtype);
        }
        if self.dim >= x.shape.rank() {
            fail!(ShapeMismatch, "{}: there is no dimension {} in shape {}", self.name, self.dim, x.shape);
        }
        let mut shape = x.shape.to_vec();
        if self.count > shape[self.dim] {
            fail!(
                ShapeMismatch,
                "{}: dimension {} of {} has no {} elements",
                self.name,
                self.dim,
                x.shape,
                self.count
            );
        }
        shape[self.dim] = self.count;
        let spec = |dtype| Spec { shape: shape[..].into(), dtype };
        Ok(vec![spec(x.dtype), spec(DType::I32)])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let space = split_around(&inputs[0].shape, Some(self.dim));
        sort(cx, inputs[0], space, self.descending, self.count, &outputs[0], &outputs[1])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0b10)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out_or_zeros(cx)?;
        let shape = &pass.input_specs[0].shape;
        let [outer, n, inner] = split_around(shape, Some(self.dim));
        let d_x = cx.empty(shape.clone(), DType::F32)?;
        scatter(cx, &d_x, pass.output(1), &d, [outer, n, self.count, inner])?;
        Ok(vec![Some(d_x)])
    }
}
