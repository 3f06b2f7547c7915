//! y = the mean of x over one dimension, or over all.
//!
//! Shapes: x any; y without the dimension, or a scalar; NaN for the mean of nothing. Backward: d_out / n broadcast over
//! the dimension. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::reduce::{Reduction, reduce_scaled};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::{broadcast_along, infer_reduced_spec, split_around};

/// Mean over `dim`, or over every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mean {
    pub dim: Option<usize>,
}

impl Op for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        Ok(vec![infer_reduced_spec(self.name(), inputs[0], self.dim)?])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let [outer, n, inner] = split_around(&inputs[0].shape, self.dim);
        if n == 0 {
            let nan = f32::NAN.to_le_bytes();
            cx.write(&outputs[0], nan.repeat(outer * inner));
            return Ok(());
        }
        reduce_scaled(cx, Reduction::Sum, inputs[0], [outer, n, inner], 1.0 / n as f32, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let shape = &pass.input_specs[0].shape;
        let [_, n, _] = split_around(shape, self.dim);
        // A sum of one term, used for its scale.
        let scaled = cx.empty(d.shape.clone(), DType::F32)?;
        reduce_scaled(cx, Reduction::Sum, d, [d.size(), 1, 1], 1.0 / n as f32, &scaled)?;
        Ok(vec![Some(broadcast_along(cx, &scaled, shape, self.dim)?)])
    }
}
