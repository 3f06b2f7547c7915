//! y = w · (x − μ) / √(var x + ε) + b over the last dimension; var is the mean of squared deviations.
//!
//! Shapes: x [.., C], w and b [C], either absent (f32, or f16 and bf16 if frozen); y like x.
//! Saved: x, w, and for each row ρ = 1 / √(var x + ε) and μ, which are hidden outputs.
//! Backward: d_x; d_w and d_b only if requested. Source: torch.nn.functional.layer_norm.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::norm::{RowStatistics, RowSum, Weights, normalise_backward, sum_rows};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::added_norm::{self, Norm};
use crate::ops::rms_norm::{check, leading_shape};

/// Layer normalisation; inputs x, then weight and bias if present.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNorm {
    pub eps: f32,
    pub weight: bool,
    pub bias: bool,
}

impl LayerNorm {
    /// Positions of weight and bias among the inputs.
    fn weight_indices(&self) -> [Option<usize>; 2] {
        [self.weight.then_some(1), self.bias.then_some(1 + self.weight as usize)]
    }
}

impl Norm for LayerNorm {
    const ADDED: &'static str = "added layerNorm";

    fn eps(&self) -> f32 {
        self.eps
    }

    fn weights<'a>(&self, inputs: &[&'a Value]) -> Weights<'a> {
        let [weight, bias] = self.weight_indices().map(|p| p.map(|p| inputs[p - 1]));
        Weights { weight, bias }
    }

    fn rows<'a>(&self, kept: &'a [Value]) -> RowStatistics<'a> {
        RowStatistics { scale: &kept[0], mean: Some(&kept[1]) }
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layerNorm"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let weight_indices = self.weight_indices();
        let weights: Vec<_> =
            ["weight", "bias"].into_iter().zip(weight_indices).filter_map(|(n, p)| Some((n, p?))).collect();
        check(self.name(), inputs, &weights)?;
        let rows = Spec::f32(leading_shape(&inputs[0].shape));
        Ok(vec![inputs[0].clone(), rows.clone(), rows])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        added_norm::forward(self, cx, inputs, outputs)
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(1 | (self.weight as u32) << 1, 0b110)
    }

    fn is_recomputed(&self) -> bool {
        true
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let mut d_inputs = vec![None; pass.needs.len()];
        let d = pass.d_out();
        let x = pass.input(0);
        let weight = self.weight.then(|| pass.input(1));
        let rows = RowStatistics { scale: pass.output(1), mean: Some(pass.output(2)) };
        if pass.needs[0] {
            let (d_x, adds) = pass.into.choose_destination(cx, 0, x.shape.clone())?;
            normalise_backward(cx, x, weight, rows, d, (&d_x, adds))?;
            d_inputs[0] = Some(d_x);
        }
        for (place, sums) in self.weight_indices().into_iter().zip([RowSum::Weight, RowSum::Bias]) {
            let Some(i) = place.filter(|i| pass.needs[*i]) else { continue };
            let d_weight = cx.empty([x.shape.last()], DType::F32)?;
            sum_rows(cx, sums, x, rows, d, &d_weight)?;
            d_inputs[i] = Some(d_weight);
        }
        Ok(d_inputs)
    }
}
