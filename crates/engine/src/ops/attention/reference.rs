//! The reference: each score separately, softmax over the visible ones, in f64.

use lowrank_cpu::random::philox;

use super::Attention;
use crate::ops::checks::Array;

/// [B, M, N, …] as [B, N, M, …].
fn exchange_dims(x: &Array) -> Array {
    let [batch, m, n] = [0, 1, 2].map(|d| x.shape[d]);
    let width = x.shape.get(3).copied().unwrap_or(1);
    let mut shape = x.shape.clone();
    shape.swap(1, 2);
    let rows = (0..batch * n * m).map(|row| (row / (n * m), row / m % n, row % m));
    let data = rows.flat_map(|(b, j, i)| x.data[((b * m + i) * n + j) * width..][..width].to_vec()).collect();
    Array { dtype: x.dtype, ..Array::new(&shape, data) }
}

pub fn compute_reference(op: &Attention, x: &[Array]) -> Vec<Array> {
    if op.heads_first {
        let mut last: Vec<Array> = x[..3].iter().map(exchange_dims).collect();
        last.extend_from_slice(&x[3..]);
        return compute_reference(&Attention { heads_first: false, ..*op }, &last)
            .iter()
            .map(exchange_dims)
            .collect();
    }
    let [q, k, v] = [&x[0], &x[1], &x[2]];
    let [batch, queries, heads, dim] = [0, 1, 2, 3].map(|d| q.shape[d]);
    let [capacity, kv_heads] = [k.shape[1], k.shape[2]];
    let length = op.length.unwrap_or(capacity);
    let scale = op.scale.map_or(1.0 / (dim as f64).sqrt(), |s| s as f64);
    let mut labels = x[3..].iter();
    let segments = if op.segments { labels.next() } else { None };
    let mask = if op.mask { labels.next() } else { None };
    let label = |l: &Array, b: usize, i: usize| l.data[b * l.shape[1] + i];
    let sees = |b: usize, t: usize, s: usize| {
        let t = op.offset + t;
        (!op.causal || s <= t && op.window.is_none_or(|w| s + w > t))
            && segments.is_none_or(|l| label(l, b, t) == label(l, b, s))
            && mask.is_none_or(|m| label(m, b, s) != 0.0)
    };
    let dropped = op.dropout_parameters();
    // The mask of row `row`, key `s`, computed from the counter.
    let is_kept = |row: usize, s: usize| {
        let Some(dropped) = dropped else { return 1.0 };
        let word = philox([s as u32 / 4, row as u32, 0, 0], dropped.key)[s % 4];
        let p = dropped.threshold as f64 / (1u64 << 32) as f64;
        if word >= dropped.threshold { 1.0 / (1.0 - p) } else { 0.0 }
    };
    let mut o = Array::new(&q.shape, vec![0.0; q.data.len()]);
    let mut lse = Array::new(&q.shape[..3], vec![-3.4e38f32 as f64; batch * queries * heads]);
    for b in 0..batch {
        for t in 0..queries {
            let seen: Vec<usize> = (0..length).filter(|s| sees(b, t, *s)).collect();
            for h in 0..heads {
                let q_at = ((b * queries + t) * heads + h) * dim;
                let kv_at = |s: usize| ((b * capacity + s) * kv_heads + h / (heads / kv_heads)) * dim;
                let scores: Vec<f64> = seen
                    .iter()
                    .map(|s| scale * (0..dim).map(|d| q.data[q_at + d] * k.data[kv_at(*s) + d]).sum::<f64>())
                    .collect();
                if scores.is_empty() {
                    continue;
                }
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                lse.data[q_at / dim] = top + sum.ln();
                for d in 0..dim {
                    let weighed = seen
                        .iter()
                        .zip(&weights)
                        .map(|(s, w)| w * is_kept(q_at / dim, *s) * v.data[kv_at(*s) + d]);
                    o.data[q_at + d] = weighed.sum::<f64>() / sum;
                }
            }
        }
    }
    vec![o, lse]
}
