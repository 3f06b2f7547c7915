//! y = the index of the first maximum of x over one dimension, or over all (in row-major order).
//!
//! Shapes: x any, with at least one element to choose from; y i32 without the dimension, or a
//! scalar. NaN counts as largest, as in PyTorch. Backward: none, as for any index.

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::reduce::argmax;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::max::check;
use crate::ops::sum::{split, without};
use crate::tensor::{Context, Spec, Value};

/// Index of the maximum over `dim`, or over every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgMax {
    pub dim: Option<usize>,
}

impl Op for ArgMax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let shape = without(self.name(), &inputs[0].shape, self.dim)?;
        check(self.name(), inputs[0], self.dim)?;
        Ok(vec![Spec { shape, dtype: DType::I32 }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        argmax(cx, inputs[0], split(&inputs[0].shape, self.dim), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::Constant
    }

    fn backward(&self, _: &Rc<Context>, _: &Backward) -> Result<Gradients> {
        fail!(NoGradient, "argmax: an index has no gradient")
    }
}
