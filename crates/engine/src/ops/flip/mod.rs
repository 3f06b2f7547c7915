//! y = x with some dimensions reversed (torch.flip).
//!
//! Shapes: y is x's. Backward: the same on d_out. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::with_f32_copies;
use crate::kernels::flip::flip;
use crate::op::{Backward, Gradient, Gradients, Op, run1};
use crate::ops::sum::split_around;

/// Along `dims`, one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    pub dims: Vec<usize>,
}

impl Op for Flip {
    fn name(&self) -> &'static str {
        "flip"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if let Some(dim) = self.dims.iter().find(|d| **d >= x.shape.rank()) {
            fail!(ShapeMismatch, "flip: there is no dimension {dim} in shape {}", x.shape);
        }
        Ok(vec![x.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        with_f32_copies(cx, inputs, &outputs[0], |inputs, y| {
            let Some((last, before)) = self.dims.split_last() else {
                cx.copy(inputs[0], y);
                return Ok(());
            };
            let mut x = inputs[0].clone();
            for dim in before {
                let part = cx.empty(x.shape.clone(), x.dtype)?;
                flip(cx, &x, split_around(&x.shape, Some(*dim)), &part)?;
                x = part;
            }
            flip(cx, &x, split_around(&x.shape, Some(*last)), y)
        })
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        Ok(vec![Some(run1(cx, self, &[pass.d_out()])?)])
    }
}
