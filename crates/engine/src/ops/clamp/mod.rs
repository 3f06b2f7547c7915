//! y = x limited to [low, high]; an infinite bound has no effect.
//!
//! Backward: d_out where x is within the bounds, including both; 0 elsewhere. Saved: x.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::fill::full;
use crate::op::{Backward, Gradient, Gradients, Op};

/// Limits to `low` and `high`; gives `high` if low > high, as in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    pub low: f64,
    pub high: f64,
}

impl Clamp {
    fn apply(&self, cx: &Rc<Context>, function: Function, x: &Value, y: &Value) -> Result<()> {
        let [low, high] = [self.low, self.high].map(|bound| full(cx, [1], DType::F32, bound));
        map(cx, function, &[x, &low?, &high?], y)
    }
}

impl Op for Clamp {
    fn name(&self) -> &'static str {
        "clamp"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        if self.low.is_nan() || self.high.is_nan() {
            fail!(Option, "clamp: the bounds are {} and {}; a bound is a number", self.low, self.high);
        }
        if !inputs[0].dtype.is_float() {
            fail!(Dtype, "clamp: takes floats, not {}; convert with to(\"f32\")", inputs[0].dtype);
        }
        Ok(vec![Spec::f32(inputs[0].shape.clone())])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        self.apply(cx, Function::Clamp, inputs[0], &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(1, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let inside = cx.empty(d.shape.clone(), DType::F32)?;
        self.apply(cx, Function::Inside, pass.input(0), &inside)?;
        let d_x = cx.empty(d.shape.clone(), DType::F32)?;
        map(cx, Function::WhereBackward, &[&inside, d], &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
