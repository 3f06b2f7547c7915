//! A block of a Llama-like decoder over a KV cache, without a gradient: generation records it for every token, in one
//! call.
//!
//! s = x + r, y = norm(s); q, k, v = y·Wᵀ, with q and k rotated by their positions, and k and v written into the cache;
//! a = s + attention(q, cache)·Wᵀ, z = norm(a); m = (silu(z·Wᵀ) · z·Wᵀ)·Wᵀ. Returns a and m; their sum is computed by
//! the next block, like x + r here. Shapes: x, r, a, m [B, T, C]; caches [B, capacity, Hkv, D]. Each layer may have one
//! low-rank path. The block is a sequence of other operations and bit-identical to them.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::gemm::{Precision, can_multiply_together, multiply_together};
use crate::op::{Op, run, run_into, run1};
use crate::ops::added_norm::AddedNorm;
use crate::ops::attention::Attention;
use crate::ops::cache_write::{cache_write, slice_rows};
use crate::ops::linear::Linear;
use crate::ops::lora_linear::{LoraLinear, Path};
use crate::ops::rms_norm::RmsNorm;
use crate::ops::rotary::Rotary;
use crate::ops::silu_mul::SiluMul;
use crate::trace::Pass;

/// A low-rank path over all rows and outputs: A, B and the scale of their product.
#[derive(Clone, Debug)]
pub struct LowRank {
    pub a: Value,
    pub b: Value,
    pub scale: f32,
}

/// A dense layer, W [O, I].
#[derive(Clone, Debug)]
pub struct Dense {
    pub weight: Value,
    pub bias: Option<Value>,
    pub low_rank: Option<LowRank>,
}

/// An RMSNorm.
#[derive(Clone, Debug)]
pub struct Norm {
    pub weight: Value,
    pub eps: f32,
}

/// A block, and its position in a text.
#[derive(Clone, Debug)]
pub struct DecoderBlock {
    /// The norms before attention and before the MLP.
    pub norms: [Norm; 2],
    /// q, k and v.
    pub inputs: [Dense; 3],
    pub output: Dense,
    /// gate and up.
    pub gated: [Dense; 2],
    pub down: Dense,
    /// The rotary tables.
    pub cos: Value,
    pub sin: Value,
    /// Caches of keys and of values, written in place.
    pub caches: [Value; 2],
    /// The first row's position, which is the number of rows in the cache.
    pub position: usize,
    /// The most keys that a query sees; default all.
    pub window: Option<usize>,
    pub scale: f32,
    pub precision: Precision,
}

impl DecoderBlock {
    /// Appends the block over x + r, or over x; returns [a, m].
    ///
    /// # Errors
    /// The errors of its operations.
    pub fn record(&self, cx: &Rc<Context>, x: &Value, r: Option<&Value>) -> Result<[Value; 2]> {
        let (sum, y) = append_norm(cx, &self.norms[0], x, r)?;
        let attended = self.attend(cx, &y)?;
        let added = self.append_layer(cx, &self.output, &attended, None)?;
        let (sum, z) = append_norm(cx, &self.norms[1], &sum, Some(&added))?;
        let [gate, up] = self.append_layers(cx, &self.gated, &z, [None, None])?;
        let gated = run1(cx, &SiluMul, &[&gate, &up])?;
        let added = self.append_layer(cx, &self.down, &gated, None)?;
        Ok([sum, added])
    }

    fn attend(&self, cx: &Rc<Context>, y: &Value) -> Result<Value> {
        let dim = self.caches[0].shape.last();
        let split_heads = |value: &Value| match &value.shape[..] {
            &[batch, time, width] if dim > 0 && width.is_multiple_of(dim) => {
                Ok(value.reshape([batch, time, width / dim, dim]))
            }
            _ => fail!(ShapeMismatch, "decoder_block: {value:?} is not [B, T, C] of heads of {dim}"),
        };
        // Keys and values are computed directly in the cache if they are contiguous there.
        let [keys, values] = [0, 1].map(|i| {
            let cache = &self.caches[i];
            let rows = slice_rows(cache, self.position, y.shape[1])?;
            (y.shape[0] == 1 && self.inputs[1 + i].weight.shape[0] == cache.shape[2] * dim).then_some(rows)
        });
        let flat = values.as_ref().map(|v| v.reshape([1, v.shape[1], v.shape[2] * dim]));
        let [q, k, v] = self.append_layers(cx, &self.inputs, y, [None, None, flat])?;
        let (q, k) = (split_heads(&q)?, split_heads(&k)?);
        let rotary = Rotary { offset: self.position, positions: false, dims: None, two: true };
        let inputs = [&q, &k, &self.cos, &self.sin];
        let in_cache = keys.is_some();
        let [q, k] = take_outputs(match keys {
            Some(keys) => run_into(cx, &rotary, &inputs, 1, keys)?,
            None => run(cx, &rotary, &inputs)?,
        });
        if !in_cache {
            cache_write(cx, &self.caches[0], &k, self.position)?;
        }
        if values.is_none() {
            cache_write(cx, &self.caches[1], &split_heads(&v)?, self.position)?;
        }
        let [batch, time] = [q.shape[0], q.shape[1]];
        let attention = Attention {
            causal: true,
            window: self.window,
            scale: Some(self.scale),
            offset: self.position,
            length: Some(self.position + time),
            precision: self.precision,
            ..Attention::default()
        };
        let o = run1(cx, &attention, &[&q, &self.caches[0], &self.caches[1]])?;
        Ok(o.reshape([batch, time, o.size() / (batch * time).max(1)]))
    }

    /// Applies layers to one input; each output is written into its entry of `destinations`, if it has one. Products without
    /// bias and low-rank path share one launch.
    fn append_layers<const N: usize>(
        &self,
        cx: &Rc<Context>,
        layers: &[Dense; N],
        x: &Value,
        destinations: [Option<Value>; N],
    ) -> Result<[Value; N]> {
        let only_weights = layers.iter().all(|layer| layer.bias.is_none() && layer.low_rank.is_none());
        let weights: SmallVec<[&Value; 3]> = layers.iter().map(|layer| &layer.weight).collect();
        if only_weights && can_multiply_together(cx, x, &weights) {
            return self.append_layers_together(cx, &weights, x, destinations);
        }
        let each = layers
            .iter()
            .zip(destinations)
            .map(|(layer, destination)| self.append_layer(cx, layer, x, destination));
        Ok(take_outputs(each.collect::<Result<Vec<_>>>()?))
    }

    /// Computes products without bias and low-rank path in one launch.
    fn append_layers_together<const N: usize>(
        &self,
        cx: &Rc<Context>,
        weights: &[&Value],
        x: &Value,
        destinations: [Option<Value>; N],
    ) -> Result<[Value; N]> {
        let op = Linear { fan_in_fan_out: false, precision: self.precision };
        let mut ys = Vec::with_capacity(N);
        for (weight, destination) in weights.iter().zip(&destinations) {
            let y = op.outputs(&[&x.spec(), &weight.spec()])?.swap_remove(0);
            ys.push(match destination {
                Some(destination) if destination.spec() == y => destination.clone(),
                Some(destination) => {
                    fail!(Internal, "decoder_block: {y} is not written into {}", destination.spec())
                }
                None => cx.empty(y.shape, y.dtype)?,
            });
        }
        cx.trace_operation(op.name(), Pass::Forward, || multiply_together(cx, x, weights, &ys));
        destinations.iter().flatten().for_each(|destination| destination.storage.record_write());
        Ok(take_outputs(ys))
    }

    fn append_layer(
        &self,
        cx: &Rc<Context>,
        layer: &Dense,
        x: &Value,
        destination: Option<Value>,
    ) -> Result<Value> {
        let (precision, weight, bias) = (self.precision, &layer.weight, layer.bias.as_ref());
        let run = |op: &dyn Op, inputs: &[&Value]| match destination {
            Some(destination) => Ok(run_into(cx, op, inputs, 0, destination)?.swap_remove(0)),
            None => run1(cx, op, inputs),
        };
        let Some(LowRank { a, b, scale }) = &layer.low_rank else {
            let linear = Linear { fan_in_fan_out: false, precision };
            let inputs: SmallVec<[&Value; 3]> = [x, weight].into_iter().chain(bias).collect();
            return run(&linear, &inputs);
        };
        let path = Path { scale: *scale, ..Path::default() };
        let op = LoraLinear { fan_in_fan_out: false, precision, paths: vec![path] };
        let inputs: SmallVec<[&Value; 5]> = [x, weight, a, b].into_iter().chain(bias).collect();
        run(&op, &inputs)
    }
}

/// Returns x + r, or x, and its norm.
fn append_norm(cx: &Rc<Context>, norm: &Norm, x: &Value, r: Option<&Value>) -> Result<(Value, Value)> {
    let op = RmsNorm { eps: norm.eps };
    let Some(r) = r else { return Ok((x.clone(), run1(cx, &op, &[x, &norm.weight])?)) };
    let mut outputs = run(cx, &AddedNorm(op), &[x, r, &norm.weight])?;
    let sum = outputs.swap_remove(1);
    Ok((sum, outputs.swap_remove(0)))
}

/// Returns the first N outputs of an operation.
fn take_outputs<const N: usize>(mut outputs: Vec<Value>) -> [Value; N] {
    outputs.truncate(N);
    outputs.try_into().expect("as many as the operation declares")
}
