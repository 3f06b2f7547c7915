//! Cross-entropy of a linear head, h·Wᵀ + b, without ever storing all logits (fused linear cross-entropy).
//!
//! Shapes: hidden [.., C] f32, weight [V, C] (f32, or frozen f16, bf16 and blocks), targets i32 [..], and optionally
//! the bias [V] f32; y a scalar, or [..] with `none`. Forward processes the rows in chunks: their logits, the losses,
//! the gradient of the logits in place, and from it the `wanted` gradients: times W (d_hidden), times hidden
//! (d_weight), its sum (d_bias). They are hidden outputs, like the number of labelled rows. Backward scales them. If
//! the host knows the targets, ignored rows are left out of the products. With `none` each row's gradient is scaled by
//! its d, which afterwards is only possible for d_hidden: so a trained head is an error.
//! Saved: d_hidden, as large as hidden, and d_weight and d_bias if wanted, instead of N·V logits and as many gradients.
//! Cost: 2 N C V forward, and as much for each of d_hidden and d_weight.
//! Source: Liger's fused linear cross-entropy (Hsu et al. 2024).

mod chunks;
#[cfg(test)]
mod reference;
mod rows;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::cross_entropy::{Labels, append_loss_sum};
use crate::kernels::elementwise::{Function, accumulate, map};
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::cross_entropy::{Reduction, check_rows, check_targets};
use chunks::{PassInputs, PassOutputs};
use rows::LabelledRows;

/// The gradients that forward computes; without any there is no backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedGradients {
    pub hidden: bool,
    pub weight: bool,
    pub bias: bool,
}

impl WantedGradients {
    pub fn any(self) -> bool {
        self.hidden || self.weight || self.bias
    }

    /// Their output indices, after the loss and the number of labelled rows: for hidden, weight, bias.
    fn outputs(self) -> [Option<usize>; 3] {
        let mut next = 1;
        [self.hidden, self.weight, self.bias].map(|on| {
            next += on as usize;
            on.then_some(next)
        })
    }
}

/// The fused head and loss; inputs hidden, weight, targets and, if present, the bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearCrossEntropy {
    pub ignore_index: i32,
    /// In [0, 1]: the share of the target distribution that is spread evenly over all columns.
    pub label_smoothing: f32,
    pub reduction: Reduction,
    pub wanted: WantedGradients,
    /// The precision of the products by W: the logits, and the gradient of hidden.
    pub precision: Precision,
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linearCrossEntropy"
    }

    fn in_blocks(&self) -> u32 {
        0b10
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let (hidden, weight, targets, bias) = (inputs[0], inputs[1], inputs[2], inputs.get(3));
        let rows = check_rows(self.name(), hidden, targets, self.label_smoothing)?;
        if !weight.dtype.is_weight() {
            fail!(Dtype, "linearCrossEntropy: the weight is {}, it must be a float", weight.dtype);
        }
        if weight.shape.rank() != 2 || weight.shape[1] != hidden.shape.last() || weight.shape[0] == 0 {
            fail!(
                ShapeMismatch,
                "linearCrossEntropy: weight {} takes no rows of {}; it is [classes, {}]",
                weight.shape,
                hidden.shape,
                hidden.shape.last()
            );
        }
        if let Some(bias) = bias.filter(|b| b.dtype != DType::F32 || b.shape[..] != [weight.shape[0]]) {
            fail!(
                ShapeMismatch,
                "linearCrossEntropy: the bias is {bias}, the weight {weight} requires f32[{}]",
                weight.shape[0]
            );
        }
        if self.reduction == Reduction::None && (self.wanted.weight || self.wanted.bias) {
            fail!(
                NoGradient,
                "linearCrossEntropy: a head that is trained takes linear and crossEntropy for losses by row"
            );
        }
        let loss = if self.reduction == Reduction::None { Spec::f32(rows) } else { Spec::f32([]) };
        let mut outputs = vec![loss, Spec::f32([])];
        outputs.extend(self.wanted.hidden.then(|| hidden.clone()));
        outputs.extend(self.wanted.weight.then(|| Spec::f32(weight.shape.clone())));
        outputs.extend(self.wanted.bias.then(|| Spec::f32([weight.shape[0]])));
        Ok(outputs)
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (hidden, weight, targets, bias) = (inputs[0], inputs[1], inputs[2], inputs.get(3).copied());
        check_targets(self.name(), targets, self.ignore_index, weight.shape[0])?;
        let c = weight.shape[1];
        let [d_hidden, d_weight, d_bias] = self.wanted.outputs().map(|at| at.map(|at| &outputs[at]));
        let labelled = LabelledRows::select(cx, targets, self.ignore_index)?;
        let by_row = self.reduction == Reduction::None;
        let losses = match labelled.is_all() && by_row {
            true => outputs[0].clone(),
            false => labelled.allocate(cx, 1)?,
        };
        if labelled.count > 0 {
            let gathered = labelled.gather(cx, hidden, c)?;
            let d_gathered = match d_hidden {
                Some(d) if !labelled.is_all() => Some((labelled.allocate(cx, c)?, d)),
                _ => None,
            };
            let inputs_of_pass = PassInputs { hidden: &gathered, weight, bias, targets: &labelled.targets };
            let d_hidden = d_gathered.as_ref().map(|(d, _)| d).or(d_hidden);
            self.run_pass(cx, &inputs_of_pass, &PassOutputs { losses: &losses, d_hidden, d_weight, d_bias })?;
            if let Some((from, to)) = &d_gathered {
                labelled.scatter(cx, from, to, c)?;
            }
        } else {
            [d_hidden, d_weight, d_bias].into_iter().flatten().for_each(|d| cx.zero(d));
        }
        if by_row {
            cx.zero(&outputs[1]);
            return if labelled.is_all() { Ok(()) } else { labelled.scatter(cx, &losses, &outputs[0], 1) };
        }
        let losses = losses.sub_range(0, [labelled.count]);
        let labels =
            Labels { targets: &labelled.targets, ignore: self.ignore_index, smoothing: self.label_smoothing };
        append_loss_sum(cx, &losses, labels, self.reduction == Reduction::Mean, &outputs[0], &outputs[1])
    }

    fn gradient(&self) -> Gradient {
        if !self.wanted.any() {
            return Gradient::Missing;
        }
        let computed = self.wanted.outputs().into_iter().flatten().fold(0, |mask, at| mask | 1 << at);
        Gradient::reads(0, computed | ((self.reduction == Reduction::Mean) as u32) << 1)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let scale = match self.reduction {
            Reduction::Sum => d.clone(),
            Reduction::Mean => {
                let scale = cx.empty([], DType::F32)?;
                map(cx, Function::Div, &[d, pass.output(1)], &scale)?;
                scale
            }
            Reduction::None => d.reshape([d.size(), 1]),
        };
        let [d_hidden, d_weight, d_bias] = self.wanted.outputs();
        let mut gradients: Gradients = vec![None; pass.needs.len()];
        for (i, at) in [(0, d_hidden), (1, d_weight), (3, d_bias)] {
            if !pass.needs.get(i).copied().unwrap_or(false) {
                continue;
            }
            let Some(at) = at else {
                fail!(NoGradient, "linearCrossEntropy: forward made no gradient of input {i}")
            };
            let computed = pass.output(at);
            let (d_x, adds) = pass.into.choose_destination(cx, i, computed.shape.clone())?;
            let scaled = if adds { cx.empty(computed.shape.clone(), DType::F32)? } else { d_x.clone() };
            match self.reduction {
                Reduction::None => {
                    let by_row = [d.size(), computed.shape.last()];
                    map(cx, Function::Mul, &[&computed.reshape(by_row), &scale], &scaled.reshape(by_row))?;
                }
                _ => map(cx, Function::Mul, &[computed, &scale], &scaled)?,
            }
            if adds {
                accumulate(cx, &d_x, &scaled)?;
            }
            gradients[i] = Some(d_x);
        }
        Ok(gradients)
    }
}
