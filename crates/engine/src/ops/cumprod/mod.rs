//! y[.., k, ..] = Π x[.., j, ..] over j ≤ k, along one dimension.
//!
//! Shapes: x f32; y is x's. Backward, without a division, so that zeros in x are exact: d_x[k] = P[k]·S[k], where P is
//! the product of the elements before k and S[k] = d[k] + x[k + 1]·S[k + 1]. Saved: x. Source: torch.cumprod.

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
use crate::kernels::flip::flip;
use crate::kernels::recurrence::{Rule, recurrence};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::split_around;

/// Along `dim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cumprod {
    pub dim: usize,
}

impl Op for Cumprod {
    fn name(&self) -> &'static str {
        "cumprod"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if x.dtype != DType::F32 {
            fail!(Dtype, "cumprod: takes f32, not {}; convert with to(\"f32\")", x.dtype);
        }
        if self.dim >= x.shape.rank() {
            fail!(ShapeMismatch, "cumprod: there is no dimension {} in shape {}", self.dim, x.shape);
        }
        Ok(vec![x.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        recurrence(cx, Rule::Product, inputs[0], split_around(&inputs[0].shape, Some(self.dim)), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(1, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let (x, d) = (pass.input(0), pass.d_out());
        let space = split_around(&d.shape, Some(self.dim));
        let empty = || cx.empty(d.shape.clone(), DType::F32);
        let (turned_x, turned_d, turned_s) = (empty()?, empty()?, empty()?);
        flip(cx, x, space, &turned_x)?;
        flip(cx, d, space, &turned_d)?;
        recurrence(cx, Rule::Sum(&turned_d), &turned_x, space, &turned_s)?;
        let (s, before, d_x) = (turned_d, turned_x, empty()?);
        flip(cx, &turned_s, space, &s)?;
        recurrence(cx, Rule::Exclusive, x, space, &before)?;
        map(cx, Function::Mul, &[&before, &s], &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
