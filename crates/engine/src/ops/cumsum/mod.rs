//! y[.., k, ..] = Σ x[.., j, ..] over j ≤ k, along one dimension.
//!
//! Shapes: x f32; y is x's. Backward: d_out summed from the end. Saved: nothing. Source: torch.cumsum.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::flip::flip;
use crate::kernels::scan::scan;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::split_around;

/// Along `dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cumsum {
    pub dim: usize,
}

impl Op for Cumsum {
    fn name(&self) -> &'static str {
        "cumsum"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if x.dtype != DType::F32 {
            fail!(Dtype, "cumsum: takes f32, not {}; convert with to(\"f32\")", x.dtype);
        }
        if self.dim >= x.shape.rank() {
            fail!(ShapeMismatch, "cumsum: there is no dimension {} in shape {}", self.dim, x.shape);
        }
        Ok(vec![x.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        scan(cx, inputs[0], split_around(&inputs[0].shape, Some(self.dim)), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let space = split_around(&d.shape, Some(self.dim));
        let [reversed, sums, d_x] = [(); 3].map(|()| cx.empty(d.shape.clone(), DType::F32));
        let (reversed, sums, d_x) = (reversed?, sums?, d_x?);
        flip(cx, d, space, &reversed)?;
        scan(cx, &reversed, space, &sums)?;
        flip(cx, &sums, space, &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
