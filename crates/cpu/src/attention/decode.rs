//! Few queries against many keys, as in decoding: bound by reading K and V once.
//!
//! A task computes one query row; lanes run along D. The block version would spread one row over 64 lanes. For one
//! token of SmolLM2's shape after 64 to 192 others, on two cores: with iterator sums, and the running maximum, the
//! weights' sum and o in memory, 0.8 ms; with them in registers, one vector at a time, 0.2 ms.

use crate::simd::{Isa, Lanes, exp_or_zero, vectorised};
use crate::tasks::{Shared, each_task};

use super::geometry::{Geometry, MASK, SEGMENTS};
use super::{Block, FLOOR, HIDDEN, KEYS, Labels};

/// The most query rows per key/value head for which this version is faster.
const ROWS: usize = 8;
/// Elements in the widest vector.
const WIDEST: usize = 16;
/// Independent sums, in vectors of an output row.
const SUMS: usize = 4;

pub fn applies_to(g: &Geometry) -> bool {
    g.rows() <= ROWS && g.is_first()
}

pub fn forward(
    g: &Geometry,
    threads: usize,
    qkv: [&[f32]; 3],
    labels: Labels,
    o: &Shared<f32>,
    lse: &Shared<f32>,
) {
    let rows = g.rows();
    each_task(threads, g.batch * g.kv_heads * rows, |task| {
        let (b, head) = (task / rows / g.kv_heads, task / rows % g.kv_heads);
        compute_row(&Block::new(g, labels, b, head, 0), task % rows, qkv, o, lse);
    });
}

vectorised! {
    fn compute_row(block: &Block, lane: usize, qkv: [&[f32]; 3], o: &Shared<f32>, lse: &Shared<f32>) {
        let [q, k, v] = qkv;
        let (g, dim) = (block.g, block.g.dim);
        let q = &q[block.q_offset(lane)..][..dim];
        // SAFETY: each task has exclusive access to its query row.
        let o = unsafe { o.slice(block.q_offset(lane), dim) };
        o.fill(0.0);
        let (mut top, mut sum, mut seen) = (FLOOR, 0f32, false);
        let [start, end] = g.visible(lane / g.group);
        // A left-padded text starts at its first key, as it would without padding.
        let start = start + block.count_hidden(start, end);
        // Without labels every key in range is visible.
        let open = g.flags & (SEGMENTS | MASK) == 0;
        for from in (start..end).step_by(KEYS) {
            // The offsets of the visible keys; their scores follow.
            let (mut at, mut count) = ([0; KEYS], 0);
            for key in from..end.min(from + KEYS) {
                if open || block.sees(lane, key) {
                    at[count] = block.kv_offset(key);
                    count += 1;
                }
            }
            let at = &at[..count];
            let mut s = [HIDDEN; KEYS];
            for (s, at) in s.iter_mut().zip(at) {
                // SAFETY: the processor has S's instructions; both slices have `dim` elements.
                *s = unsafe { dot_product::<S>(q, &k[*at..][..dim]) } * g.scale;
            }
            let highest = find_max(&s, top);
            let factor = exp_or_zero::<S>(top - highest);
            for s in &mut s {
                *s = exp_or_zero::<S>(*s - highest);
            }
            seen |= count > 0;
            sum = sum * factor + sum_weights(&s);
            // SAFETY: the processor has S's instructions.
            unsafe { accumulate_values::<S>(&s[..count], at, v, factor, o) };
            top = highest;
        }
        let (factor, total) = match () {
            _ if sum == 0.0 && seen => (f32::NAN, f32::NAN),
            _ if sum == 0.0 => (0.0, HIDDEN),
            _ => (1.0 / sum, top + sum.ln()),
        };
        o.iter_mut().for_each(|o| *o *= factor);
        // SAFETY: each task has exclusive access to its query row.
        unsafe { lse.slice(block.lse_index(lane), 1)[0] = total };
    }
}

/// Returns q · k.
///
/// # Safety
/// As for `Lanes`; both slices have the same length.
#[inline(always)]
unsafe fn dot_product<S: Isa>(q: &[f32], k: &[f32]) -> f32 {
    let (n, q, k) = (q.len(), q.as_ptr(), k.as_ptr());
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [S::V::splat(0.0); SUMS];
        let mut d = 0;
        while d + SUMS * S::WIDTH <= n {
            for (i, sum) in sums.iter_mut().enumerate() {
                let d = d + i * S::WIDTH;
                *sum = S::V::load(q.add(d)).fma(S::V::load(k.add(d)), *sum);
            }
            d += SUMS * S::WIDTH;
        }
        let [a, b, c, e] = sums;
        let mut sum = a.add(b).add(c.add(e));
        while d < n {
            let count = S::WIDTH.min(n - d);
            sum = S::V::load_first(q.add(d), count).fma(S::V::load_first(k.add(d), count), sum);
            d += count;
        }
        sum.sum()
    }
}

/// Computes o = o · factor + Σ p · v, with the rows of V at the offsets `at`.
///
/// # Safety
/// As for `Lanes`.
#[inline(always)]
unsafe fn accumulate_values<S: Isa>(p: &[f32], at: &[usize], v: &[f32], factor: f32, o: &mut [f32]) {
    let (n, to) = (o.len(), o.as_mut_ptr());
    // Rows have at least the length of o.
    assert!(at.iter().all(|at| at + n <= v.len()));
    // SAFETY: guaranteed by the caller; the offsets were checked above.
    unsafe {
        let factor = S::V::splat(factor);
        let mut d = 0;
        while d + SUMS * S::WIDTH <= n {
            let mut sums = [factor; SUMS];
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = S::V::load(to.add(d + i * S::WIDTH)).mul(factor);
            }
            for (p, at) in p.iter().zip(at) {
                let p = S::V::splat(*p);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = p.fma(S::V::load(v.as_ptr().add(at + d + i * S::WIDTH)), *sum);
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                sum.store(to.add(d + i * S::WIDTH));
            }
            d += SUMS * S::WIDTH;
        }
        while d < n {
            let count = S::WIDTH.min(n - d);
            let mut sum = S::V::load_first(to.add(d), count).mul(factor);
            for (p, at) in p.iter().zip(at) {
                sum = S::V::splat(*p).fma(S::V::load_first(v.as_ptr().add(at + d), count), sum);
            }
            sum.store_first(to.add(d), count);
            d += count;
        }
    }
}

/// Returns the largest of `top` and the scores. Ignores NaN, which stays NaN through exp.
#[inline(always)]
fn find_max(s: &[f32; KEYS], top: f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [top; WIDEST];
    for s in s.chunks_exact(WIDEST) {
        for (m, s) in lanes.iter_mut().zip(s) {
            *m = larger(*m, *s);
        }
    }
    lanes.into_iter().fold(top, larger)
}

#[inline(always)]
fn sum_weights(p: &[f32; KEYS]) -> f32 {
    let mut lanes = [0f32; WIDEST];
    for p in p.chunks_exact(WIDEST) {
        for (sum, p) in lanes.iter_mut().zip(p) {
            *sum += p;
        }
    }
    lanes.into_iter().sum()
}
