//! y = x with its last dimensions padded by one value (torch.nn.functional.pad, mode constant).
//!
//! Shapes: x [.., *size] of any storage type, y [.., *(before + size + after)]. Backward: the part of d_out at x's
//! position. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy, with_f32_copies};
use crate::kernels::fill::fill;
use crate::op::{Backward, Gradient, Gradients, Op};

/// Pads the last dimensions, one entry of [before, after] each, with `value`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantPad {
    pub padding: Vec<[usize; 2]>,
    pub value: f64,
}

impl ConstantPad {
    /// The box of x in a value of y's shape.
    fn locate_box<'a>(&self, whole: &'a Value) -> Side<'a> {
        let strides = whole.shape.strides();
        let first = strides.len() - self.padding.len();
        let start = self.padding.iter().zip(&strides[first..]).map(|([before, _], step)| before * step).sum();
        Side { value: whole, start, strides }
    }
}

impl Op for ConstantPad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        let Some(first) = x.shape.rank().checked_sub(self.padding.len()) else {
            fail!(ShapeMismatch, "pad: {} dimensions of an input of shape {}", self.padding.len(), x.shape);
        };
        let mut shape = x.shape.to_vec();
        for (n, [before, after]) in shape[first..].iter_mut().zip(&self.padding) {
            *n += before + after;
        }
        Ok(vec![Spec { shape: shape[..].into(), dtype: x.dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        with_f32_copies(cx, inputs, &outputs[0], |inputs, y| {
            fill(cx, y, self.value)?;
            copy(cx, self.name(), &inputs[0].shape, &Side::whole(inputs[0]), &self.locate_box(y))
        })
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d_x = cx.empty(pass.input_specs[0].shape.clone(), DType::F32)?;
        copy(cx, self.name(), &d_x.shape, &self.locate_box(pass.d_out()), &Side::whole(&d_x))?;
        Ok(vec![Some(d_x)])
    }
}
