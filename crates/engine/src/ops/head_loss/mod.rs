//! Cross-entropy of a frozen head, h · Wᵀ, whose logits never exist whole.
//!
//! Shapes: hidden [.., C], weight [V, C] (f32, f16 or bf16), targets i32 [..]; y a scalar.
//! Forward takes the rows by chunks: their logits, the losses, the gradient of the logits over them in
//! place, and at once its product with W, which is the gradient of hidden (a hidden output, like the
//! number of trained rows). Backward scales it. Where the host knows the targets, ignored rows are
//! left out of the products. W is given no gradient, and asking for one is an error.
//! Saved: the gradient of hidden, as large as hidden, where there would be N · V logits and as many
//! gradients. Cost: 2 N C V forward, as many for the gradient. Source: Liger's fused linear cross-entropy.

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::cross_entropy::{Labels, row_losses, row_losses_in_place, settle};
use crate::kernels::elementwise::{Function, map};
use crate::kernels::gemm::{Gemm, Matrix, Precision, gemm, row_stride};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::cross_entropy::{check_rows, check_targets};
use crate::tensor::{Context, Spec, Value};

/// The fused head and loss; inputs hidden, weight and targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadLoss {
    pub ignore_index: i32,
    pub label_smoothing: f32,
    /// The mean over the trained rows; their sum otherwise.
    pub mean: bool,
    /// Whether forward makes the gradient of hidden; without it there is no backward.
    pub with_gradient: bool,
    /// Of the products by W: the logits, and the gradient of hidden.
    pub precision: Precision,
}

/// Bytes of logits that exist at a time, and the bounds of a chunk's rows: below, products run slowly.
const LOGIT_BYTES: usize = 64 << 20;
const ROWS: std::ops::RangeInclusive<usize> = 64..=1024;
/// Runs of trained rows that are worth gathering by copies, one each.
const RUNS: usize = 256;

/// The trained rows as runs (first row, number of rows).
type Runs = Vec<(usize, usize)>;

/// The runs of rows to go through, and how many rows they are: all where the host does not know
/// the targets, or where they are too scattered.
fn trained(targets: &Value, ignore: i32) -> (Runs, usize) {
    let all = targets.size();
    let Some(host) = targets.host() else { return (vec![(0, all)], all) };
    let mut runs = Runs::new();
    for (row, _) in host.iter().enumerate().filter(|(_, t)| **t != ignore) {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == row => *count += 1,
            _ => runs.push((row, 1)),
        }
    }
    if runs.len() > RUNS {
        return (vec![(0, all)], all);
    }
    let rows = runs.iter().map(|(_, n)| n).sum();
    (runs, rows)
}

impl HeadLoss {
    /// Goes through `rows` rows of `hidden` and `targets`, writing their losses and, with a
    /// gradient, d_hidden.
    fn chunks(
        &self,
        cx: &Rc<Context>,
        [hidden, weight, targets]: [&Value; 3],
        losses: &Value,
        d_hidden: Option<&Value>,
    ) -> Result<()> {
        let (rows, c, v) = (targets.size(), weight.shape[1], weight.shape[0]);
        let most = (LOGIT_BYTES / (4 * v)).clamp(*ROWS.start(), *ROWS.end());
        // Chunks of a size, so that none is left with a few rows.
        let chunk = rows.div_ceil(rows.div_ceil(most));
        let stride = if d_hidden.is_some() { row_stride(v) } else { v };
        let logits = cx.empty([chunk.min(rows), stride], DType::F32)?;
        let log_sums = cx.empty([chunk.min(rows)], DType::F32)?;
        for from in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - from);
            let h = hidden.sub_range(from * c, [n, c]);
            let logits = logits.sub_range(0, [n, stride]);
            let targets = targets.sub_range(from, [n]);
            let losses = losses.sub_range(from, [n]);
            let labels =
                Labels { targets: &targets, ignore: self.ignore_index, smoothing: self.label_smoothing };
            gemm(
                cx,
                Gemm::new(n, v, c).precision(self.precision),
                Matrix::new(&h, c),
                Matrix::new(weight, c).t(),
                None,
                Matrix::new(&logits, stride),
            )?;
            match d_hidden {
                Some(d_hidden) => {
                    row_losses_in_place(cx, &logits, v, labels, &losses)?;
                    let d_h = d_hidden.sub_range(from * c, [n, c]);
                    gemm(
                        cx,
                        Gemm::new(n, c, v).precision(self.precision),
                        Matrix::new(&logits, stride),
                        Matrix::new(weight, c),
                        None,
                        Matrix::new(&d_h, c),
                    )?;
                }
                None => row_losses(cx, &logits, labels, &losses, &log_sums.sub_range(0, [n]))?,
            }
        }
        Ok(())
    }
}

impl Op for HeadLoss {
    fn name(&self) -> &'static str {
        "headLoss"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [hidden, weight, targets] = inputs else { unreachable!("three inputs") };
        check_rows(self.name(), hidden, targets, self.label_smoothing)?;
        if !weight.dtype.is_float() {
            fail!(Dtype, "headLoss: the weight is {}, it must be a float", weight.dtype);
        }
        if weight.shape.rank() != 2 || weight.shape[1] != hidden.shape.last() || weight.shape[0] == 0 {
            fail!(
                ShapeMismatch,
                "headLoss: weight {} takes no rows of {}; it is [classes, {}]",
                weight.shape,
                hidden.shape,
                hidden.shape.last()
            );
        }
        let mut outputs = vec![Spec::f32([]), Spec::f32([])];
        outputs.extend(self.with_gradient.then(|| (*hidden).clone()));
        Ok(outputs)
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let [hidden, weight, targets] = inputs else { unreachable!("three inputs") };
        check_targets(self.name(), targets, self.ignore_index, weight.shape[0])?;
        let c = weight.shape[1];
        let d_hidden = outputs.get(2);
        let (runs, rows) = trained(targets, self.ignore_index);
        let losses = cx.empty([rows], DType::F32)?;
        let whole = rows == targets.size();
        let kept = if whole { (*targets).clone() } else { cx.empty([rows], DType::I32)? };
        if whole {
            if rows > 0 {
                self.chunks(cx, [hidden, weight, targets], &losses, d_hidden)?;
            }
        } else {
            if let Some(d_hidden) = d_hidden {
                cx.zero(d_hidden);
            }
            if rows > 0 {
                let gathered = cx.empty([rows, c], DType::F32)?;
                let d_gathered = d_hidden.map(|_| cx.empty([rows, c], DType::F32)).transpose()?;
                let mut at = 0;
                for &(first, n) in &runs {
                    cx.copy(&targets.sub_range(first, [n]), &kept.sub_range(at, [n]));
                    cx.copy(&hidden.sub_range(first * c, [n, c]), &gathered.sub_range(at * c, [n, c]));
                    at += n;
                }
                self.chunks(cx, [&gathered, weight, &kept], &losses, d_gathered.as_ref())?;
                let mut at = 0;
                for (first, n) in runs {
                    if let (Some(d), Some(d_hidden)) = (&d_gathered, d_hidden) {
                        cx.copy(&d.sub_range(at * c, [n, c]), &d_hidden.sub_range(first * c, [n, c]));
                    }
                    at += n;
                }
            }
        }
        let labels = Labels { targets: &kept, ignore: self.ignore_index, smoothing: self.label_smoothing };
        settle(cx, &losses, labels, self.mean, &outputs[0], &outputs[1])
    }

    fn gradient(&self) -> Gradient {
        if self.with_gradient { Gradient::reads(0, 0b110) } else { Gradient::Missing }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        if pass.needs[1] {
            fail!(
                NoGradient,
                "headLoss: its weight is frozen; a head that is trained takes linear and crossEntropy"
            );
        }
        let d = pass.d_out();
        let mut scale = d.clone();
        if self.mean {
            scale = cx.empty([], DType::F32)?;
            map(cx, Function::Div, &[d, pass.output(1)], &scale)?;
        }
        let d_hidden = pass.output(2);
        let d_x = cx.empty(d_hidden.shape.clone(), DType::F32)?;
        map(cx, Function::Mul, &[d_hidden, &scale], &d_x)?;
        Ok(vec![Some(d_x), None, None])
    }
}
