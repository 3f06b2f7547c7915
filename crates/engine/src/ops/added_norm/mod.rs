//! s = x + r, and y = norm(s): the sum at the end of a residual branch, and the norm that reads it.
//!
//! Shapes: x and r are equal; the norm's other inputs follow them. Outputs: y, s, and the norm's values for each row.
//! Saved: s instead of x, the weights, and the rows' values; y is recomputed from s.
//! Backward: the gradient of s plus the norm's gradient with respect to s, added in place; it is the gradient of both x
//! and r. Bit-identical to separate sum and norm, with one pass less over memory in each direction.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::norm::{Residual, RowStatistics, Weights, normalise};
use crate::op::{Backward, BackwardReads, Destinations, Gradient, Gradients, Op, Recomputation, Source};

/// The index of the sum among the outputs.
const SUM: usize = 1;

/// A norm over [x, its weights, ..] whose forward can first add a residual to x.
pub trait Norm: Op + Copy {
    /// The name of the operation with the addition.
    const ADDED: &'static str;

    fn eps(&self) -> f32;

    /// Its inputs after x.
    fn weights<'a>(&self, inputs: &[&'a Value]) -> Weights<'a>;

    /// Its outputs after y.
    fn rows<'a>(&self, kept: &'a [Value]) -> RowStatistics<'a>;
}

/// The forward of `norm` over [x, its weights, ..].
pub fn forward<N: Norm>(norm: &N, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
    let (weights, rows) = (norm.weights(&inputs[1..]), norm.rows(&outputs[1..]));
    normalise(cx, inputs[0], None, weights, norm.eps(), &outputs[0], rows)
}

/// Inputs: x, r, then the norm's weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddedNorm<N>(pub N);

impl<N: Norm> AddedNorm<N> {
    fn norm_reads(&self) -> BackwardReads {
        match self.0.gradient() {
            Gradient::BackwardReads(reads) => reads,
            Gradient::Constant | Gradient::Missing => unreachable!("norms have gradients"),
        }
    }
}

impl<N: Norm> Op for AddedNorm<N> {
    fn name(&self) -> &'static str {
        N::ADDED
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [x, r] = [inputs[0], inputs[1]];
        if x != r {
            fail!(ShapeMismatch, "{}: {x} and {r} differ", self.name());
        }
        let mut outputs = self.0.outputs(&[&inputs[..1], &inputs[2..]].concat())?;
        outputs.insert(SUM, x.clone());
        Ok(outputs)
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let residual = Residual { added: inputs[1], sum: &outputs[SUM] };
        let (weights, rows) = (self.0.weights(&inputs[2..]), self.0.rows(&outputs[SUM + 1..]));
        normalise(cx, inputs[0], Some(residual), weights, self.0.eps(), &outputs[0], rows)
    }

    fn gradient(&self) -> Gradient {
        let reads = self.norm_reads();
        Gradient::reads(reads.inputs >> 1 << 2, reads.outputs << 1 | 1 << SUM)
    }

    fn is_recomputed(&self) -> bool {
        true
    }

    fn recomputation(&self) -> Option<Recomputation> {
        // The sum, and weight and bias if present.
        let of = vec![Source::Output(SUM), Source::Input(2), Source::Input(3)];
        Some(Recomputation { op: Rc::new(self.0), of })
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let (d, d_sum) = (&pass.d_outs[0], &pass.d_outs[SUM]);
        let (needs, weights) = (pass.needs[0] || pass.needs[1], &pass.needs[2..]);
        let mut d_inputs = vec![None; 1 + weights.len()];
        if d.is_some() {
            // The norm adds its gradient to the gradient of the sum, in place.
            let place = d_sum.as_ref().filter(|_| needs).map(|d| Ok((pass.take_or_copy(cx, d)?, true)));
            let norm = Backward {
                inputs: pass.outputs[SUM..=SUM].iter().chain(&pass.inputs[2..]).cloned().collect(),
                outputs: [None].iter().chain(&pass.outputs[SUM + 1..]).cloned().collect(),
                needs: [needs].iter().chain(weights).copied().collect(),
                d_outs: vec![d.clone()],
                into: Destinations::new(vec![place.transpose()?]),
                ..Backward::default()
            };
            d_inputs = self.0.backward(cx, &norm)?;
        } else if needs {
            d_inputs[0] = d_sum.clone();
        }
        let d_x = d_inputs[0].take();
        let both = [0, 1].map(|i| d_x.clone().filter(|_| pass.needs[i]));
        Ok(both.into_iter().chain(d_inputs.into_iter().skip(1)).collect())
    }
}
