//! y = the mean of x over windows that divide its last dimensions into a given number of parts.
//!
//! Shapes: x [.., *size], y [.., *out]; window o of a dimension is [⌊o·size/out⌋, ⌈(o+1)·size/out⌉).
//! Saved: nothing. Source: torch.nn.functional.adaptive_avg_pool1d, 2d, 3d.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::pool::{Windows, mean};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::avg_pool::append_d_mean;
use crate::ops::max_pool::{infer_shape, split_planes};
use crate::shape::pad_to_three;

/// Mean over windows; `out` has their number for each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveAvgPool {
    pub out: Vec<usize>,
}

impl AdaptiveAvgPool {
    fn resolve_windows(&self, x: &Spec) -> Result<Windows> {
        let (planes, size) = split_planes(self.name(), x, self.out.len())?;
        if size.contains(&0) || self.out.contains(&0) {
            fail!(ShapeMismatch, "{}: an input of shape {} into {:?}", self.name(), x.shape, self.out);
        }
        let (size, out) = (pad_to_three(size, 1), pad_to_three(&self.out, 1));
        Ok(Windows {
            planes,
            size,
            out,
            // The largest possible window, for the work estimate.
            kernel: [0, 1, 2].map(|d| size[d].div_ceil(out[d]) + 1),
            stride: [1; 3],
            padding: [0; 3],
            adaptive: true,
            count_padding: false,
        })
    }
}

impl Op for AdaptiveAvgPool {
    fn name(&self) -> &'static str {
        "adaptiveAvgPool"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let windows = self.resolve_windows(inputs[0])?;
        Ok(vec![Spec::f32(infer_shape(&inputs[0].shape, &windows, self.out.len()))])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        mean(cx, &self.resolve_windows(&inputs[0].spec())?, inputs[0], &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        append_d_mean(cx, &self.resolve_windows(&pass.input_specs[0])?, pass)
    }
}
