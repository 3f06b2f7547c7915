//! y = w · x / √(mean x² + ε) over the last dimension.
//!
//! Shapes: x [.., C], w [C] (optional; f32, or f16 and bf16 if frozen); y like x.
//! Saved: x, w, and for each row ρ = 1 / √(mean x² + ε), which is a hidden second output.
//! Backward: d_x; d_w only if requested. Source: torch.nn.functional.rms_norm.

#[cfg(test)]
pub mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::norm::{RowStatistics, RowSum, Weights, normalise_backward, sum_rows};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::added_norm::{self, Norm};
use crate::shape::Shape;

/// Root-mean-square normalisation; inputs x and, optionally, weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsNorm {
    pub eps: f32,
}

/// Checks x and the weights over its last dimension; `weights` has their names and positions among `inputs`.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` and `ERR_DTYPE`.
pub fn check(op: &str, inputs: &[&Spec], weights: &[(&str, usize)]) -> Result<()> {
    let x = inputs[0];
    if x.dtype != DType::F32 {
        fail!(Dtype, "{op}: takes f32, not {}; convert with to(\"f32\")", x.dtype);
    }
    if x.shape.rank() == 0 {
        fail!(ShapeMismatch, "{op}: takes at least one dimension, not a scalar");
    }
    for (name, i) in weights {
        let w = inputs[*i];
        if w.shape[..] != [x.shape.last()] {
            fail!(ShapeMismatch, "{op}: {name} is {}, the rows of x {} are not as long", w.shape, x.shape);
        }
        if !w.dtype.is_float() {
            fail!(Dtype, "{op}: {name} is {}, it must be a float", w.dtype);
        }
    }
    Ok(())
}

/// `shape` without its last dimension.
pub fn leading_shape(shape: &Shape) -> Shape {
    Shape::new(&shape[..shape.rank() - 1])
}

impl Norm for RmsNorm {
    const ADDED: &'static str = "added rmsNorm";

    fn eps(&self) -> f32 {
        self.eps
    }

    fn weights<'a>(&self, inputs: &[&'a Value]) -> Weights<'a> {
        Weights { weight: inputs.first().copied(), bias: None }
    }

    fn rows<'a>(&self, kept: &'a [Value]) -> RowStatistics<'a> {
        RowStatistics { scale: &kept[0], mean: None }
    }
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rmsNorm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        check(self.name(), inputs, if inputs.len() > 1 { &[("weight", 1)] } else { &[] })?;
        Ok(vec![inputs[0].clone(), Spec::f32(leading_shape(&inputs[0].shape))])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        added_norm::forward(self, cx, inputs, outputs)
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b11, 0b10)
    }

    fn is_recomputed(&self) -> bool {
        true
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let mut d_inputs = vec![None; pass.needs.len()];
        let d = pass.d_out();
        let x = pass.input(0);
        let weight = (pass.needs.len() > 1).then(|| pass.input(1));
        let rows = RowStatistics { scale: pass.output(1), mean: None };
        if pass.needs[0] {
            let (d_x, adds) = pass.into.choose_destination(cx, 0, x.shape.clone())?;
            normalise_backward(cx, x, weight, rows, d, (&d_x, adds))?;
            d_inputs[0] = Some(d_x);
        }
        if pass.needs.get(1) == Some(&true) {
            let d_weight = cx.empty([x.shape.last()], DType::F32)?;
            sum_rows(cx, RowSum::Weight, x, rows, d, &d_weight)?;
            d_inputs[1] = Some(d_weight);
        }
        Ok(d_inputs)
    }
}
