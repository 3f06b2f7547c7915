//! y = the index of the first maximum or minimum of x over one dimension, or over all (in row-major order).
//!
//! Shapes: x any, with at least one element to choose from; y i32 without the dimension, or a scalar. NaN precedes all
//! numbers, as in PyTorch. Backward: none, since y is an index.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::reduce::arg_extremum;
use crate::op::{Backward, Gradient, Gradients, Op};
pub use crate::ops::extremum::Extreme;
use crate::ops::extremum::check;
use crate::ops::sum::{remove_dim, split_around};

/// Over `dim`, or over every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgExtremum {
    pub extreme: Extreme,
    pub dim: Option<usize>,
}

impl Op for ArgExtremum {
    fn name(&self) -> &'static str {
        match self.extreme {
            Extreme::Max => "argmax",
            Extreme::Min => "argmin",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let shape = remove_dim(self.name(), &inputs[0].shape, self.dim)?;
        check(self.name(), inputs[0], self.dim)?;
        Ok(vec![Spec { shape, dtype: DType::I32 }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        arg_extremum(cx, self.extreme, inputs[0], split_around(&inputs[0].shape, self.dim), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::Constant
    }

    fn backward(&self, _: &Rc<Context>, _: &Backward) -> Result<Gradients> {
        fail!(NoGradient, "argmax, argmin: an index has no gradient")
    }
}
