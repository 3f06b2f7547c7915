//! Few queries against many keys, as in decoding: bound by reading K and V once.
//!
//! A task takes one query row; lanes run along D. The block form would spread one row over 64 lanes.

use rayon::prelude::*;

use super::super::geometry::{Geometry, MASK, SEGMENTS};
use super::{Block, FLOOR, HIDDEN, KEYS, Labels};
use crate::device::cpu::Shared;
use crate::kernels::numeric::{dot, exp, vectorised};

/// Query rows of a key/value head up to which this form is the faster one.
const ROWS: usize = 8;

pub fn serves(g: &Geometry) -> bool {
    g.rows() <= ROWS && g.first
}

pub fn forward(g: &Geometry, qkv: [&[f32]; 3], labels: Labels, o: &Shared<f32>, lse: &Shared<f32>) {
    let rows = g.rows();
    (0..g.batch * g.kv_heads * rows).into_par_iter().with_max_len(1).for_each(|task| {
        let (b, head) = (task / rows / g.kv_heads, task / rows % g.kv_heads);
        one_row(&Block::new(g, labels, b, head, 0), task % rows, qkv, o, lse);
    });
}

vectorised! {
    fn one_row(block: &Block, lane: usize, qkv: [&[f32]; 3], o: &Shared<f32>, lse: &Shared<f32>) -> () {
        let [q, k, v] = qkv;
        let (g, dim) = (block.g, block.g.dim);
        let q = &q[block.q_at(lane)..][..dim];
        let o = unsafe { o.slice(block.q_at(lane), dim) };
        o.fill(0.0);
        let (mut top, mut sum, mut seen) = (FLOOR, 0f32, false);
        let [start, end] = g.visible(lane / g.group);
        // Every key in reach is seen but where labels say otherwise.
        let open = g.flags & (SEGMENTS | MASK) == 0;
        for from in (start..end).step_by(KEYS) {
            let count = KEYS.min(end - from);
            let mut s = [HIDDEN; KEYS];
            let mut highest = top;
            for (i, s) in s[..count].iter_mut().enumerate().filter(|(i, _)| open || block.sees(lane, from + i)) {
                *s = dot::<S>(q, &k[block.kv_at(from + i)..][..dim]) * g.scale;
                highest = if *s > highest { *s } else { highest };
                seen = true;
            }
            let factor = exp::<S>(top - highest);
            if highest != top {
                o.iter_mut().for_each(|o| *o *= factor);
            }
            let mut p = s;
            p.iter_mut().for_each(|p| *p = exp::<S>(*p - highest));
            for i in (0..count).filter(|i| s[*i] != HIDDEN) {
                let v = &v[block.kv_at(from + i)..][..dim];
                for (o, v) in o.iter_mut().zip(v) {
                    *o = S::fma(p[i], *v, *o);
                }
            }
            sum = sum * factor + p[..count].iter().sum::<f32>();
            top = highest;
        }
        let (factor, total) = match () {
            _ if sum == 0.0 && seen => (f32::NAN, f32::NAN),
            _ if sum == 0.0 => (0.0, HIDDEN),
            _ => (1.0 / sum, top + sum.ln()),
        };
        o.iter_mut().for_each(|o| *o *= factor);
        unsafe { lse.slice(block.lse_at(lane), 1)[0] = total };
    }
}
