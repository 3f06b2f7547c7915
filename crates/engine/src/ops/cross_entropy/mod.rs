//! Cross-entropy of logits with the index of the correct column.
//!
//! Shapes: logits [.., V], targets i32 [..]; y a scalar, or [..] with `none`. Rows with the target `ignore_index` are
//! ignored; the mean over no rows is NaN, as in PyTorch. A target outside of 0..V is `ERR_INDEX` if the host knows the
//! targets, otherwise a NaN loss.
//! Saved: logits, targets, the log-sum-exp of every row and the number of trained rows (both hidden outputs).
//! Backward: one pass over the logits. Source: torch.nn.functional.cross_entropy.

#[cfg(test)]
pub mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::cross_entropy::{
    Labels, Scale, append_loss_sum, append_row_losses, append_row_losses_backward,
};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::Shape;

/// The reduction of the rows' losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Over the rows that are not ignored.
    Mean,
    Sum,
    None,
}

/// Cross-entropy; inputs logits and targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    pub ignore_index: i32,
    /// In [0, 1]: the share of the target distribution that is spread evenly over all columns.
    pub label_smoothing: f32,
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        CrossEntropy { ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::Mean }
    }
}

/// Checks that targets are valid columns, if the host knows them.
///
/// # Errors
/// `ERR_INDEX` with the label, its position and the number of columns.
pub fn check_targets(op: &str, targets: &Value, ignore: i32, columns: usize) -> Result<()> {
    let Some(host) = targets.host() else { return Ok(()) };
    let wrong = host.iter().position(|t| *t != ignore && usize::try_from(*t).map_or(true, |t| t >= columns));
    if let Some(i) = wrong {
        fail!(
            Index,
            "{op}: label {} at position {i} is no class: there are {columns} (0 to {}), and {ignore} is ignored",
            host[i],
            columns as i64 - 1
        );
    }
    Ok(())
}

/// Checks dtypes, and that there is a target for every row of x; returns the shape of the targets.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH`, `ERR_DTYPE`, and `ERR_OPTION` for a smoothing outside [0, 1].
pub fn check_rows(op: &str, x: &Spec, targets: &Spec, smoothing: f32) -> Result<Shape> {
    if x.dtype != DType::F32 || targets.dtype != DType::I32 {
        fail!(Dtype, "{op}: takes f32 and i32 targets, not {} and {}", x.dtype, targets.dtype);
    }
    if x.shape.rank() == 0 || targets.shape[..] != x.shape[..x.shape.rank() - 1] {
        fail!(ShapeMismatch, "{op}: targets {} are not one for each row of {}", targets.shape, x.shape);
    }
    if !(0.0..=1.0).contains(&smoothing) {
        fail!(Option, "{op}: labelSmoothing is {smoothing}, it must lie between 0 and 1");
    }
    Ok(targets.shape.clone())
}

impl CrossEntropy {
    fn labels<'a>(&self, targets: &'a Value) -> Labels<'a> {
        Labels { targets, ignore: self.ignore_index, smoothing: self.label_smoothing }
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "crossEntropy"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let rows = check_rows(self.name(), inputs[0], inputs[1], self.label_smoothing)?;
        if inputs[0].shape.last() == 0 {
            fail!(ShapeMismatch, "crossEntropy: logits {} have no classes", inputs[0].shape);
        }
        Ok(match self.reduction {
            Reduction::None => vec![Spec::f32(rows.clone()), Spec::f32(rows)],
            _ => vec![Spec::f32([]), Spec::f32(rows), Spec::f32([])],
        })
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let [x, targets] = inputs else { unreachable!("two inputs") };
        check_targets(self.name(), targets, self.ignore_index, x.shape.last())?;
        let labels = self.labels(targets);
        if self.reduction == Reduction::None {
            return append_row_losses(cx, x, labels, &outputs[0], &outputs[1]);
        }
        let losses = cx.empty(targets.shape.clone(), DType::F32)?;
        append_row_losses(cx, x, labels, &losses, &outputs[1])?;
        append_loss_sum(cx, &losses, labels, self.reduction == Reduction::Mean, &outputs[0], &outputs[2])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b11, if self.reduction == Reduction::None { 0b10 } else { 0b110 })
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let x = pass.input(0);
        let scale = match self.reduction {
            Reduction::None => Scale::Row(d),
            Reduction::Sum => Scale::All(d),
            Reduction::Mean => Scale::Mean(d, pass.output(2)),
        };
        let d_x = cx.empty(x.shape.clone(), DType::F32)?;
        append_row_losses_backward(cx, x, self.labels(pass.input(1)), pass.output(1), scale, &d_x)?;
        Ok(vec![Some(d_x), None])
    }
}
