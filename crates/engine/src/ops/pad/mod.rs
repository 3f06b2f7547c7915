//! y = x with its last dimensions padded by its elements.
//!
//! Shapes: x [.., *size], y [.., *(before + size + after)]. Modes: `reflect` (without the end itself; padding below the
//! size), `replicate`, `circular` (padding of at most the size). Dimensions are padded one by one, so that corners are
//! padding of padding, as in PyTorch. Saved: nothing. Backward: the gradients of padding elements are added to their
//! sources. Source: torch.nn.functional.pad.

#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::pad::{Edges, pad, pad_backward};
use crate::op::{Backward, Gradient, Gradients, Op};

pub use crate::kernels::pad::Mode;

impl Mode {
    /// Parses PyTorch's name of a mode.
    pub fn parse(name: &str) -> Option<Mode> {
        Some(match name {
            "reflect" => Mode::Reflect,
            "replicate" => Mode::Replicate,
            "circular" => Mode::Circular,
            _ => return None,
        })
    }
}

/// Pads the last dimensions, one entry of [before, after] each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    pub mode: Mode,
    pub padding: Vec<[usize; 2]>,
}

impl Pad {
    /// The edges of each padded dimension, with the earlier ones already padded and the later ones not yet.
    fn list_edges(&self, shape: &[usize]) -> Vec<Edges> {
        let first = shape.len() - self.padding.len();
        let mut sizes = shape.to_vec();
        let mut edges = Vec::new();
        for (i, [before, after]) in self.padding.iter().copied().enumerate() {
            let d = first + i;
            if before + after == 0 {
                continue;
            }
            let product = |sizes: &[usize]| sizes.iter().product();
            let (outer, inner) = (product(&sizes[..d]), product(&sizes[d + 1..]));
            edges.push(Edges { mode: self.mode, outer, n: sizes[d], inner, before, after });
            sizes[d] += before + after;
        }
        edges
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if x.dtype != DType::F32 {
            fail!(Dtype, "pad: takes f32, not {}; convert with to(\"f32\")", x.dtype);
        }
        let Some(first) = x.shape.rank().checked_sub(self.padding.len()) else {
            fail!(ShapeMismatch, "pad: {} dimensions of an input of shape {}", self.padding.len(), x.shape);
        };
        let mut shape = x.shape.to_vec();
        for (i, [before, after]) in self.padding.iter().copied().enumerate() {
            let n = shape[first + i];
            let max = match self.mode {
                Mode::Reflect => n.saturating_sub(1),
                Mode::Circular => n,
                Mode::Replicate if n == 0 => 0,
                Mode::Replicate => usize::MAX,
            };
            if before.max(after) > max {
                let mode = format!("{:?}", self.mode).to_lowercase();
                fail!(
                    ShapeMismatch,
                    "pad: {mode} takes padding of at most {max} for dimension {} of shape {}, not {}",
                    first + i,
                    x.shape,
                    before.max(after)
                );
            }
            shape[first + i] += before + after;
        }
        Ok(vec![Spec::f32(&shape[..])])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let edges = self.list_edges(&inputs[0].shape);
        if edges.is_empty() {
            cx.copy(inputs[0], &outputs[0]);
        }
        let mut x = inputs[0].clone();
        for (i, e) in edges.iter().enumerate() {
            let y = match i + 1 == edges.len() {
                true => outputs[0].clone(),
                false => cx.empty([e.outer, e.before + e.n + e.after, e.inner], DType::F32)?,
            };
            pad(cx, *e, &x, &y)?;
            x = y;
        }
        Ok(())
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let x = &pass.input_specs[0].shape;
        let mut d = pass.d_out().clone();
        for e in self.list_edges(x).iter().rev() {
            let d_x = cx.empty([e.outer, e.n, e.inner], DType::F32)?;
            pad_backward(cx, *e, &d, &d_x)?;
            d = d_x;
        }
        Ok(vec![Some(d.reshape(x.clone()))])
    }
}
