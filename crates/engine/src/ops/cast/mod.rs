//! y = x in another storage type.
//!
//! Blocks are unpacked, and there is no cast to blocks. To half types: round to nearest, ties to even; floats to i32:
//! truncated. Backward: d_out as f32, whichever float type y has; none through i32. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::cast::cast;
use crate::op::{Backward, Gradient, Gradients, Op, run1};

/// To `dtype`; returns x itself if it already has that dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    pub dtype: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "to"
    }

    fn in_blocks(&self) -> u32 {
        (self.dtype.is_float() || self.dtype.is_block()) as u32
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        if self.dtype.is_block() && self.dtype != inputs[0].dtype {
            fail!(Dtype, "to: {} is not quantised to {}; a model is as it is loaded", inputs[0], self.dtype);
        }
        Ok(vec![Spec { shape: inputs[0].shape.clone(), dtype: self.dtype }])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        (inputs[0].dtype == self.dtype).then(|| vec![inputs[0].clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (x, y) = (inputs[0], &outputs[0]);
        if !x.dtype.is_block() || y.dtype == DType::F32 {
            return cast(cx, x, y);
        }
        let wide = cx.empty(x.shape.clone(), DType::F32)?;
        cast(cx, x, &wide)?;
        cast(cx, &wide, y)
    }

    fn gradient(&self) -> Gradient {
        if self.dtype.is_float() { Gradient::reads(0, 0) } else { Gradient::Constant }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        Ok(vec![Some(run1(cx, &Cast { dtype: DType::F32 }, &[d])?)])
    }
}
