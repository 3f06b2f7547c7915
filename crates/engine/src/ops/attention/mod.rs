//! o = softmax(scale · q kᵀ) v with grouped heads, optionally causal, and with labels that separate rows.
//!
//! Shapes: q, o [B, T, H, D]; k, v [B, S, Hkv, D], H a multiple of Hkv, D at most 256; the second output is the
//! log-sum-exp [B, T, H], which backward needs. With heads first: q, o [B, H, T, D]; k, v [B, Hkv, S, D]; the
//! log-sum-exp [B, H, T]. Query t has position offset + t, key s position s.
//! Saved: the inputs, o and the log-sum-exp; never the scores. A query that sees no key gives zeros and passes no
//! gradient. A value that is not finite affects every query that sees it and, in forward, no other.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use lowrank_cpu::random::{philox, words};

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::attention::{
    AttentionCall, BackwardInputs, DIM, Dropout as Dropped, Sizes, backward, forward,
};
use crate::kernels::dropout::check_probability;
use crate::kernels::gemm::Precision;
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::dropout::Dropout;

/// Inputs: q, k, v, then the segments and the mask if the attributes request them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Attention {
    /// A query sees no key after its own position.
    pub causal: bool,
    /// The most keys that a query sees, including its own: positions t − window + 1 to t.
    pub window: Option<usize>,
    /// Default 1/√D.
    pub scale: Option<f32>,
    /// The first query's position.
    pub offset: usize,
    /// The number of keys to read from k and v, which may be cache buffers; default all.
    pub length: Option<usize>,
    /// The next input is i32 [B, N], a segment for each position: positions see each other only within a segment.
    pub segments: bool,
    /// The next input is i32 [B, N]: keys where it is 0 are hidden.
    pub mask: bool,
    /// Heads are the second dimension of all inputs and outputs. Segments are not supported.
    pub heads_first: bool,
    /// The rounding of the products' factors on a processor.
    pub precision: Precision,
    /// Drops weights and multiplies the others by 1 / (1 − p); p below 1.
    pub dropout: Dropout,
}

impl Attention {
    fn attend<'a>(&self, inputs: &[&'a Value]) -> AttentionCall<'a> {
        let mut labels = inputs[3..].iter().copied();
        let q = inputs[0];
        AttentionCall {
            q,
            k: inputs[1],
            v: inputs[2],
            segments: if self.segments { labels.next() } else { None },
            mask: if self.mask { labels.next() } else { None },
            causal: self.causal,
            window: self.window,
            scale: self.scale.unwrap_or(1.0 / (q.shape[3] as f32).sqrt()),
            offset: self.offset,
            length: self.length.unwrap_or(self.sizes(q, inputs[1]).capacity),
            heads_first: self.heads_first,
            precision: self.precision,
            dropout: self.dropout_parameters(),
        }
    }

    fn dropout_parameters(&self) -> Option<Dropped> {
        let Dropout { p, seed, offset } = self.dropout;
        let threshold = (p * (1u64 << 32) as f64).round().min(u32::MAX as f64) as u32;
        // Derives a key for this call, since launches have no room for the offset. Its counter is used by no other
        // draw.
        let [low, high] = words(offset);
        let [first, second, ..] = philox([u32::MAX, 0, low, high], words(seed));
        (threshold > 0).then_some(Dropped { key: [first, second], threshold })
    }

    fn sizes(&self, q: &Value, k: &Value) -> Sizes {
        Sizes::new(&q.shape, &k.shape, self.heads_first)
    }

    fn count_inputs(&self) -> usize {
        3 + self.segments as usize + self.mask as usize
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        assert_eq!(inputs.len(), self.count_inputs(), "attention: inputs are q, k, v and the labels it says");
        let [q, k, v] = [inputs[0], inputs[1], inputs[2]];
        if [q, k, v].iter().any(|x| x.dtype != DType::F32) {
            fail!(Dtype, "attention: takes f32, not q {q}, k {k}, v {v}; convert with to(\"f32\")");
        }
        let head = if self.heads_first { 1 } else { 2 };
        let fits = [q, k, v].iter().all(|x| x.shape.rank() == 4)
            && k.shape == v.shape
            && q.shape[0] == k.shape[0]
            && q.shape[3] == k.shape[3]
            && k.shape[head] > 0
            && q.shape[head] > 0
            && q.shape[head].is_multiple_of(k.shape[head]);
        if !fits {
            let [queries, keys] = match self.heads_first {
                true => ["[B, H, T, D]", "[B, Hkv, S, D]"],
                false => ["[B, T, H, D]", "[B, S, Hkv, D]"],
            };
            fail!(
                ShapeMismatch,
                "attention: q {}, k {} and v {} are not {queries} and twice {keys} with H a multiple of Hkv",
                q.shape,
                k.shape,
                v.shape
            );
        }
        if self.heads_first && self.dropout.p > 0.0 {
            fail!(Option, "attention: dropout needs q, k and v as [B, T, H, D]");
        }
        if self.heads_first && self.segments {
            fail!(Option, "attention: segments need q, k and v as [B, T, H, D]");
        }
        let Sizes { batch, queries, capacity, dim, .. } = Sizes::new(&q.shape, &k.shape, self.heads_first);
        if dim == 0 || dim > DIM {
            fail!(ShapeMismatch, "attention: heads of {dim}, in q {}; 1 to {DIM} are served", q.shape);
        }
        check_probability("attention", self.dropout.p)?;
        if self.dropout.p == 1.0 {
            fail!(Option, "attention: p of dropout is 1, which leaves nothing; it must be below 1");
        }
        let length = self.length.unwrap_or(capacity);
        if length == 0 || length > capacity {
            fail!(ShapeMismatch, "attention: {length} keys are to be read of k {}", k.shape);
        }
        if self.window.is_some() && (!self.causal || self.window == Some(0)) {
            fail!(Option, "attention: a window is of at least one key and needs causal");
        }
        let reach = length.max(self.offset + queries);
        let labels = [(self.segments, "segments", reach), (self.mask, "mask", length)];
        for ((_, what, min_keys), labels) in labels.into_iter().filter(|l| l.0).zip(&inputs[3..]) {
            if labels.dtype != DType::I32 {
                fail!(Dtype, "attention: {what} is {}, not i32", labels.dtype);
            }
            let shape = &labels.shape;
            if shape.rank() != 2 || shape[0] != batch || shape[1] < min_keys {
                fail!(
                    ShapeMismatch,
                    "attention: {what} {shape} is not [{batch}, {min_keys} or more], for q {} and {length} keys",
                    q.shape
                );
            }
        }
        Ok(vec![Spec::f32(q.shape.clone()), Spec::f32(&q.shape[..3])])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        if inputs[0].size() == 0 {
            return Ok(());
        }
        forward(cx, &self.attend(inputs), &outputs[0], &outputs[1])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads((1 << self.count_inputs()) - 1, 0b11)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let mut d_inputs = vec![None; self.count_inputs()];
        let d_o = &pass.d_out_or_zeros(cx)?;
        let inputs: Vec<&Value> = (0..self.count_inputs()).map(|i| pass.input(i)).collect();
        let flow =
            BackwardInputs { d_o, o: pass.output(0), lse: pass.output(1), d_lse: pass.d_outs[1].as_ref() };
        let allocate_like = |i: usize| cx.empty(pass.input_specs[i].shape.clone(), DType::F32);
        let d_q = if pass.needs[0] { Some(allocate_like(0)?) } else { None };
        let d_kv =
            if pass.needs[1] || pass.needs[2] { Some([allocate_like(1)?, allocate_like(2)?]) } else { None };
        let both = d_kv.as_ref().map(|[d_k, d_v]| [d_k, d_v]);
        backward(cx, &self.attend(&inputs), &flow, d_q.as_ref(), both)?;
        d_inputs[0] = d_q;
        if let Some([d_k, d_v]) = d_kv {
            d_inputs[1] = pass.needs[1].then_some(d_k);
            d_inputs[2] = pass.needs[2].then_some(d_v);
        }
        Ok(d_inputs)
    }
}
