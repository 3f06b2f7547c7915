//! y = the mean of x over windows of its last dimensions.
//!
//! Shapes: as for `max_pool`. A mean divides by the number of elements in the window, with `count_padding` including
//! the padding but nothing beyond it. Saved: nothing.
//! Source: torch.nn.functional.avg_pool1d, 2d, 3d.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::pool::{Windows, mean, mean_backward};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::max_pool::{Window, infer_shape};

/// Mean over windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvgPool {
    pub window: Window,
    pub count_padding: bool,
}

impl AvgPool {
    fn resolve_windows(&self, x: &Spec) -> Result<Windows> {
        Ok(Windows { count_padding: self.count_padding, ..self.window.resolve(self.name(), x)? })
    }
}

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        "avgPool"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let windows = self.resolve_windows(inputs[0])?;
        Ok(vec![Spec::f32(infer_shape(&inputs[0].shape, &windows, self.window.kernel.len()))])
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

/// The gradient of a mean over `windows`.
pub fn append_d_mean(cx: &Rc<Context>, windows: &Windows, pass: &Backward) -> Result<Gradients> {
    let d_x = cx.empty(pass.input_specs[0].shape.clone(), DType::F32)?;
    mean_backward(cx, windows, pass.d_out(), &d_x)?;
    Ok(vec![Some(d_x)])
}
