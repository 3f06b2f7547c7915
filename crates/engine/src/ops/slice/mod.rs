//! y = x[.., start..end, ..] along one dimension.
//!
//! Backward: d_out at its position, with zeros elsewhere, or added to the gradient of other slices: all parts of x
//! together cost as much as x, regardless of their number. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy, with_f32_copies};
use crate::kernels::elementwise::{Function, map};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::Shape;

/// Elements `start..end` of `dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub dim: usize,
    pub start: usize,
    pub end: usize,
}

impl Slice {
    /// The box of the slice in a value of the whole shape.
    fn locate_box<'a>(&self, whole: &'a Value) -> Side<'a> {
        let strides = whole.shape.strides();
        Side { value: whole, start: self.start * strides[self.dim], strides }
    }
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        let Slice { dim, start, end } = *self;
        if dim >= x.shape.rank() {
            fail!(ShapeMismatch, "slice: there is no dimension {dim} in shape {}", x.shape);
        }
        if start > end || end > x.shape[dim] {
            fail!(ShapeMismatch, "slice: {start}..{end} is not within dimension {dim} of shape {}", x.shape);
        }
        let mut shape = x.shape.to_vec();
        shape[dim] = end - start;
        Ok(vec![Spec { shape: Shape::new(&shape), dtype: x.dtype }])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        let x = inputs[0];
        (self.start == 0 && self.end == x.shape[self.dim]).then(|| vec![x.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        with_f32_copies(cx, inputs, &outputs[0], |inputs, y| {
            copy(cx, self.name(), &y.shape, &self.locate_box(inputs[0]), &Side::whole(y))
        })
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        if d.shape == pass.input_specs[0].shape {
            return Ok(vec![Some(d.clone())]);
        }
        let (d_x, adds) = pass.into.choose_destination(cx, 0, pass.input_specs[0].shape.clone())?;
        if !adds {
            cx.zero(&d_x);
            copy(cx, self.name(), &d.shape, &Side::whole(d), &self.locate_box(&d_x))?;
            return Ok(vec![Some(d_x)]);
        }
        let [before, sum] = [cx.empty(d.shape.clone(), DType::F32)?, cx.empty(d.shape.clone(), DType::F32)?];
        copy(cx, self.name(), &d.shape, &self.locate_box(&d_x), &Side::whole(&before))?;
        map(cx, Function::Add, &[&before, d], &sum)?;
        copy(cx, self.name(), &d.shape, &Side::whole(&sum), &self.locate_box(&d_x))?;
        Ok(vec![Some(d_x)])
    }
}
