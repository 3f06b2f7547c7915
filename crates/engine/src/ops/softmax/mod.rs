//! y = softmax(x) over one dimension, or its logarithm.
//!
//! Shapes: y like x. Backward reads only y. A NaN, a +∞, or only −∞ makes the row NaN, as in PyTorch. Saved: y.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::softmax::{SoftmaxKind, softmax, softmax_backward};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::{remove_dim, split_around};

/// Softmax over `dim`, or its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    pub kind: SoftmaxKind,
    pub dim: usize,
}

impl Softmax {
    pub fn new(dim: usize) -> Softmax {
        Softmax { kind: SoftmaxKind::Softmax, dim }
    }

    pub fn log(dim: usize) -> Softmax {
        Softmax { kind: SoftmaxKind::LogSoftmax, dim }
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        match self.kind {
            SoftmaxKind::Softmax => "softmax",
            SoftmaxKind::LogSoftmax => "logSoftmax",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if x.dtype != DType::F32 {
            fail!(Dtype, "{}: takes f32, not {}; convert with to(\"f32\")", self.name(), x.dtype);
        }
        remove_dim(self.name(), &x.shape, Some(self.dim))?;
        Ok(vec![x.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        softmax(cx, self.kind, inputs[0], split_around(&inputs[0].shape, Some(self.dim)), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 1)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let y = pass.output(0);
        let d_x = cx.empty(y.shape.clone(), DType::F32)?;
        softmax_backward(cx, self.kind, y, d, split_around(&y.shape, Some(self.dim)), &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
