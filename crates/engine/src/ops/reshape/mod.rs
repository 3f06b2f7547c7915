//! The same elements with another shape: no kernel, the storage is shared.
//!
//! Backward: d_out with the input's shape. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::Shape;

/// To `shape`, of the same size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshape {
    pub shape: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        let size = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if size != Some(x.shape.size()) {
            fail!(ShapeMismatch, "reshape: {} has not as many elements as {}", x.shape, self.shape);
        }
        Ok(vec![Spec { shape: self.shape.clone(), dtype: x.dtype }])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        Some(vec![inputs[0].reshape(self.shape.clone())])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        cx.copy(inputs[0], &outputs[0]);
        Ok(())
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, _: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d_x = pass.d_outs[0].as_ref().filter(|_| pass.needs[0]);
        Ok(vec![d_x.map(|d| d.reshape(pass.input_specs[0].shape.clone()))])
    }
}
