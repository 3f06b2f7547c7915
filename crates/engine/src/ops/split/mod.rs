//! y_i = the i-th piece of x along one dimension (torch.split).
//!
//! Shapes: y_i is x's with sizes[i] for the dimension; the sizes add up to it. Backward: the pieces' gradients,
//! concatenated, with 0 for a piece without one. That is one pass; slices would add up one gradient for each piece.
//! Saved: nothing.

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
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::Shape;

/// Pieces of `sizes` along `dim`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub dim: usize,
    pub sizes: Vec<usize>,
}

impl Split {
    /// The start of each piece along the dimension.
    fn starts(&self) -> impl Iterator<Item = usize> {
        self.sizes.iter().scan(0, |at, size| {
            *at += size;
            Some(*at - size)
        })
    }
}

/// The box in a value of the whole shape that starts at `at` along `dim`.
fn locate_box(whole: &Value, dim: usize, at: usize) -> Side<'_> {
    let strides = whole.shape.strides();
    Side { value: whole, start: at * strides[dim], strides }
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if self.dim >= x.shape.rank() {
            fail!(ShapeMismatch, "split: there is no dimension {} in shape {}", self.dim, x.shape);
        }
        if self.sizes.iter().sum::<usize>() != x.shape[self.dim] {
            fail!(ShapeMismatch, "split: {:?} is not dimension {} of {}", self.sizes, self.dim, x.shape);
        }
        let piece = |size: &usize| {
            let mut shape = x.shape.to_vec();
            shape[self.dim] = *size;
            Spec { shape: Shape::new(&shape), dtype: x.dtype }
        };
        Ok(self.sizes.iter().map(piece).collect())
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        for (start, y) in self.starts().zip(outputs) {
            with_f32_copies(cx, inputs, y, |inputs, y| {
                copy(cx, self.name(), &y.shape, &locate_box(inputs[0], self.dim, start), &Side::whole(y))
            })?;
        }
        Ok(())
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d_x = cx.empty(pass.input_specs[0].shape.clone(), DType::F32)?;
        if pass.d_outs.iter().any(Option::is_none) {
            cx.zero(&d_x);
        }
        for (start, d) in self.starts().zip(&pass.d_outs) {
            if let Some(d) = d {
                copy(cx, self.name(), &d.shape, &Side::whole(d), &locate_box(&d_x, self.dim, start))?;
            }
        }
        Ok(vec![Some(d_x)])
    }
}
