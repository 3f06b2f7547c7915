//! A block of a Llama-like decoder over a cache of keys and values, without a gradient: what generation
//! records for every token, in one call.
//!
//! s = x + r, y = norm(s); q, k, v = y·Wᵀ, q and k turned by their positions, k and v written into the
//! cache; a = s + attention(q, cache)·Wᵀ, z = norm(a); m = (silu(z·Wᵀ) · z·Wᵀ)·Wᵀ. Gives a and m, whose
//! sum is left to what reads it, as r is here. Shapes: x, r, a, m [B, T, C]; caches [B, capacity, Hkv, D].
//! Layers may have a low-rank path each. It is a list of other operations and has their bits.

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::error::Result;
use crate::fail;
use crate::kernels::gemm::Precision;
use crate::op::{Op, run, run1};
use crate::ops::added_norm::Added;
use crate::ops::attention::Attention;
use crate::ops::cache_write::cache_write;
use crate::ops::linear::Linear;
use crate::ops::lora_linear::{LoraLinear, Path};
use crate::ops::projections::Projections;
use crate::ops::rms_norm::RmsNorm;
use crate::ops::rotary::Rotary;
use crate::ops::silu_mul::SiluMul;
use crate::tensor::{Context, Value};

/// A low-rank path over all rows and outputs: A, B and what scales their product.
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

/// A block, and where in a text it stands.
#[derive(Clone, Debug)]
pub struct DecoderBlock {
    /// In front of attention and of the MLP.
    pub norms: [Norm; 2],
    /// q, k and v.
    pub inputs: [Dense; 3],
    pub output: Dense,
    /// gate and up.
    pub gated: [Dense; 2],
    pub down: Dense,
    /// Tables of the rotation.
    pub cos: Value,
    pub sin: Value,
    /// Of keys and of values, written in place.
    pub caches: [Value; 2],
    /// Of the first row: as many are in the cache.
    pub position: usize,
    /// Keys that a query sees at most; all without.
    pub window: Option<usize>,
    pub scale: f32,
    pub precision: Precision,
}

impl DecoderBlock {
    /// Appends the block over x + r, or over x: gives [a, m].
    ///
    /// # Errors
    /// Those of the operations that it consists of.
    pub fn record(&self, cx: &Rc<Context>, x: &Value, r: Option<&Value>) -> Result<[Value; 2]> {
        let (sum, y) = added_norm(cx, &self.norms[0], x, r)?;
        let qkv = self.dense(cx, &self.inputs, &y)?;
        let attended = self.attend(cx, qkv)?;
        let [added] = self.dense(cx, std::array::from_ref(&self.output), &attended)?;
        let (sum, z) = added_norm(cx, &self.norms[1], &sum, Some(&added))?;
        let [gate, up] = self.dense(cx, &self.gated, &z)?;
        let gated = run1(cx, &SiluMul, &[&gate, &up])?;
        let [added] = self.dense(cx, std::array::from_ref(&self.down), &gated)?;
        Ok([sum, added])
    }

    fn attend(&self, cx: &Rc<Context>, [q, k, v]: [Value; 3]) -> Result<Value> {
        let dim = self.caches[0].shape.last();
        let in_heads = |value: &Value| match &value.shape[..] {
            &[batch, time, width] if dim > 0 && width.is_multiple_of(dim) => {
                Ok(value.reshaped([batch, time, width / dim, dim]))
            }
            _ => fail!(ShapeMismatch, "decoder_block: {value:?} is not [B, T, C] of heads of {dim}"),
        };
        let (q, k, v) = (in_heads(&q)?, in_heads(&k)?, in_heads(&v)?);
        let rotary = Rotary { offset: self.position, positions: false, dims: None, two: true };
        let [q, k] = made(run(cx, &rotary, &[&q, &k, &self.cos, &self.sin])?);
        for (cache, rows) in self.caches.iter().zip([&k, &v]) {
            cache_write(cx, cache, rows, self.position)?;
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
        Ok(o.reshaped([batch, time, o.size() / (batch * time).max(1)]))
    }

    /// What layers give of one input. The products x·Aᵀ of several low-rank paths are made together.
    fn dense<const N: usize>(&self, cx: &Rc<Context>, layers: &[Dense; N], x: &Value) -> Result<[Value; N]> {
        let paths = || layers.iter().filter_map(|layer| layer.low_rank.as_ref());
        let mut projected = match paths().count() {
            0 | 1 => Vec::new(),
            _ => {
                let inputs: Vec<&Value> = [x].into_iter().chain(paths().map(|path| &path.a)).collect();
                run(cx, &Projections, &inputs)?
            }
        }
        .into_iter();
        let each = layers.iter().map(|layer| {
            let h = layer.low_rank.as_ref().and_then(|_| projected.next());
            self.one(cx, layer, x, h.as_ref())
        });
        Ok(made(each.collect::<Result<Vec<_>>>()?))
    }

    fn one(&self, cx: &Rc<Context>, layer: &Dense, x: &Value, h: Option<&Value>) -> Result<Value> {
        let (precision, weight, bias) = (self.precision, &layer.weight, layer.bias.as_ref());
        let run = |op: &dyn Op, inputs: &[&Value]| run1(cx, op, inputs);
        let Some(LowRank { a, b, scale }) = &layer.low_rank else {
            let linear = Linear { fan_in_fan_out: false, precision };
            return match bias {
                Some(bias) => run(&linear, &[x, weight, bias]),
                None => run(&linear, &[x, weight]),
            };
        };
        let path = Path { scale: *scale, ..Path::default() };
        let projected = h.is_some();
        let op = LoraLinear { fan_in_fan_out: false, precision, paths: vec![path], projected };
        let inputs: Vec<&Value> = [x, weight, a, b].into_iter().chain(h).chain(bias).collect();
        run(&op, &inputs)
    }
}

/// x + r, or x, and its norm.
fn added_norm(cx: &Rc<Context>, norm: &Norm, x: &Value, r: Option<&Value>) -> Result<(Value, Value)> {
    let op = RmsNorm { eps: norm.eps };
    let Some(r) = r else { return Ok((x.clone(), run1(cx, &op, &[x, &norm.weight])?)) };
    let mut made = run(cx, &Added(op), &[x, r, &norm.weight])?;
    let sum = made.swap_remove(1);
    Ok((sum, made.swap_remove(0)))
}

/// The first outputs of an operation.
fn made<const N: usize>(mut outputs: Vec<Value>) -> [Value; N] {
    outputs.truncate(N);
    outputs.try_into().expect("as many as the operation declares")
}
