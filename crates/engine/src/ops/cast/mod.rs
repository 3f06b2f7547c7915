//! y = x in another storage type.
//!
//! To half types: to the nearest, ties to even; floats to i32: the fraction is dropped. Backward:
//! d_out as f32, whichever float y was stored as; none through i32. Saved: nothing.

#[cfg(test)]
mod plain;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::cast::cast;
use crate::op::{Backward, Gradient, Gradients, Op, run1};
use crate::value::{Spec, Value};

/// To `dtype`; x itself where it is stored so already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    pub dtype: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "to"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        Ok(vec![Spec { shape: inputs[0].shape.clone(), dtype: self.dtype }])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        (inputs[0].dtype == self.dtype).then(|| vec![inputs[0].clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        cast(cx, inputs[0], &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        if self.dtype.is_float() { Gradient::reads(0, 0) } else { Gradient::Constant }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        Ok(vec![Some(run1(cx, &Cast { dtype: DType::F32 }, &[d])?)])
    }
}
