//! y = x with a share p of its elements dropped, the rest scaled by 1 / (1 − p).
//!
//! Backward: the same mask on d_out. Saved: nothing; the mask is recomputed from (seed, offset).

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::dropout::{check_probability, dropout};
use crate::op::{Backward, Gradient, Gradients, Op};

/// Dropout with a mask that depends only on `seed` and `offset`; each call uses a new offset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropout {
    pub p: f64,
    pub seed: u64,
    pub offset: u64,
}

impl Dropout {
    fn apply_mask(&self, cx: &Rc<Context>, x: &Value, y: &Value) -> Result<()> {
        dropout(cx, self.seed, self.offset, self.p, x, y, false)
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        check_probability(self.name(), self.p)?;
        if inputs[0].dtype != DType::F32 {
            fail!(Dtype, "dropout: takes f32, not {}; convert with to(\"f32\")", inputs[0].dtype);
        }
        Ok(vec![inputs[0].clone()])
    }

    fn alias(&self, inputs: &[&Value]) -> Option<Vec<Value>> {
        (self.p == 0.0).then(|| vec![inputs[0].clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        self.apply_mask(cx, inputs[0], &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        if self.p == 0.0 {
            return Ok(vec![Some(d.clone())]);
        }
        let d_x = cx.empty(d.shape.clone(), DType::F32)?;
        self.apply_mask(cx, d, &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
