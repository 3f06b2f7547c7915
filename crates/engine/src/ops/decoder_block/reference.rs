//! The reference: the oracles of the operations in sequence.

use std::collections::HashMap;

use super::DecoderBlock;
use crate::ops::attention::{Attention, reference::compute_reference as attention};
use crate::ops::cache_write::reference::compute_reference as cache_write;
use crate::ops::checks::Array;
use crate::ops::linear::reference::compute_reference as linear;
use crate::ops::lora_linear::{LoraLinear, Path, reference::compute_reference as lora_linear};
use crate::ops::rms_norm::reference::compute_reference as rms_norm;
use crate::ops::rotary::{Rotary, reference::compute_reference as rotary};
use crate::ops::silu_mul::reference::compute_reference as silu_mul;

/// Returns [a, m] of `block` over x + r; `arrays` has its tensors by name, and the caches among them are written.
pub fn compute_reference(
    block: &DecoderBlock,
    arrays: &mut HashMap<String, Array>,
    x: &Array,
    r: Option<&Array>,
) -> [Array; 2] {
    let dense = |arrays: &HashMap<String, Array>, layer: &str, scale: f32, x: &Array| {
        let part = |name: &str| arrays.get(&format!("{layer}.{name}")).cloned();
        let (weight, bias) = (part("weight").unwrap(), part("bias"));
        let (Some(a), Some(b)) = (part("a"), part("b")) else {
            return linear(false, x, &weight, bias.as_ref());
        };
        let paths = vec![Path { scale, ..Path::default() }];
        let inputs: Vec<Array> = [x.clone(), weight, a, b].into_iter().chain(bias).collect();
        lora_linear(&LoraLinear { paths, ..LoraLinear::default() }, &inputs).swap_remove(0)
    };
    let scale = |layer: &super::Dense| layer.low_rank.as_ref().map_or(0.0, |path| path.scale);
    let norm = |arrays: &HashMap<String, Array>, i: usize, x: &Array| {
        rms_norm(x, Some(&arrays[&format!("norm{i}")]), None, block.norms[i].eps as f64, false)
    };
    let added =
        |x: &Array, r: &Array| Array::new(&x.shape, x.data.iter().zip(&r.data).map(|(x, r)| x + r).collect());
    let sum = r.map_or_else(|| x.clone(), |r| added(x, r));
    let y = norm(arrays, 0, &sum);
    let [batch, time] = [x.shape[0], x.shape[1]];
    let dim = arrays["k"].shape[3];
    let [q, k, v] = [0, 1, 2].map(|i| {
        let flat = dense(arrays, ["qq", "kk", "vv"][i], scale(&block.inputs[i]), &y);
        let heads = flat.shape[2] / dim;
        Array::new(&[batch, time, heads, dim], flat.data)
    });
    let turn = Rotary { offset: block.position, ..Rotary::default() };
    let tables = [arrays["cos"].clone(), arrays["sin"].clone()];
    let (q, k) = (rotary(&turn, &q, &tables), rotary(&turn, &k, &tables));
    for (name, rows) in [("k", &k), ("v", &v)] {
        cache_write(arrays.get_mut(name).unwrap(), rows, block.position);
    }
    let op = Attention {
        causal: true,
        window: block.window,
        scale: Some(block.scale),
        offset: block.position,
        length: Some(block.position + time),
        ..Attention::default()
    };
    let heads = q.shape[2];
    let o = attention(&op, &[q, arrays["k"].clone(), arrays["v"].clone()]).swap_remove(0);
    let o = Array::new(&[batch, time, heads * dim], o.data);
    let a = added(&sum, &dense(arrays, "output", scale(&block.output), &o));
    let z = norm(arrays, 1, &a);
    let gate = dense(arrays, "gate", scale(&block.gated[0]), &z);
    let up = dense(arrays, "up", scale(&block.gated[1]), &z);
    let gated = silu_mul(&[gate, up]).swap_remove(0);
    let m = dense(arrays, "down", scale(&block.down), &gated);
    [a, m]
}
