//! y = x repeated along dimensions of size 1 and along new leading ones (torch.expand, but a copy).
//!
//! Shapes: x broadcasts to `shape`, which is y's. Backward: d_out summed over the repeated dimensions. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy, with_f32_copies};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::sum_to;
use crate::shape::Shape;

/// To `shape`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expand {
    pub shape: Shape,
}

impl Op for Expand {
    fn name(&self) -> &'static str {
        "expand"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        let fits = x.shape.rank() <= self.shape.rank()
            && x.shape.iter().rev().zip(self.shape.iter().rev()).all(|(x, y)| x == y || *x == 1);
        if !fits {
            fail!(ShapeMismatch, "expand: {} does not broadcast to {}", x.shape, self.shape);
        }
        Ok(vec![Spec { shape: self.shape.clone(), dtype: x.dtype }])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        (inputs[0].size() == self.shape.size()).then(|| vec![inputs[0].reshape(self.shape.clone())])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        with_f32_copies(cx, inputs, &outputs[0], |inputs, y| {
            let x = inputs[0];
            let own = x.shape.strides();
            let new = y.shape.rank() - x.shape.rank();
            let stride = |d: usize| match d.checked_sub(new) {
                Some(i) if x.shape[i] != 1 => own[i],
                _ => 0,
            };
            let strides = (0..y.shape.rank()).map(stride).collect();
            copy(cx, self.name(), &y.shape, &Side { value: x, start: 0, strides }, &Side::whole(y))
        })
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let x = &pass.input_specs[0].shape;
        if x.size() == self.shape.size() {
            return Ok(vec![Some(pass.d_out().reshape(x.clone()))]);
        }
        Ok(vec![Some(sum_to(cx, pass.d_out().clone(), x)?)])
    }
}
