//! O = softmax(scale · Q Kᵀ) V, one block of query rows at a time.

#[cfg(target_arch = "x86_64")]
use crate::simd::amx::Configured;
use crate::simd::{self, Isa, Level, compiled, exp_or_zero};
use crate::tasks::{Shared, each_task};

use super::dropped::DropoutMask;
use super::geometry::{DIM, Geometry, LANES};
use super::pairs::{Source, TERMS, pack_across_transposed, pack_along, pack_along_transposed};
use super::product::multiply;
use super::{
    Block, FLOOR, HIDDEN, KEYS, Labels, ROW, Scratch, TRANSPOSED_ROW, align_to_tiles, decode, pack,
    transpose_back, transpose_rows,
};

/// Lanes of running maxima that are kept in registers.
const WIDE: usize = 16;

/// Computes o and the log-sum-exp of one window of keys. Unless `g.is_first()`, both continue from earlier windows.
///
/// `q`, `o` and `k`, `v` have the strides of `g`; `lse` has one number per query row. `level` is at most the process's
/// level. With a `mask`, weights are dropped.
///
/// # Panics
/// If an operand ends before `g` says, or the processor lacks the level.
pub fn forward(
    g: &Geometry,
    level: Level,
    threads: usize,
    [q, k, v]: [&[f32]; 3],
    labels: Labels,
    mask: Option<DropoutMask>,
    o: &mut [f32],
    lse: &mut [f32],
) {
    assert!(level <= simd::level(), "attention: the processor lacks {}", level.name());
    let (o, lse) = (Shared::new(o), Shared::new(lse));
    if mask.is_none() && decode::applies_to(g) {
        return decode::forward(g, threads, [q, k, v], labels, &o, &lse);
    }
    let blocks = g.blocks();
    let compute = compute_block(level);
    each_task(threads, g.batch * g.kv_heads * blocks, |task| {
        // The last blocks see the most keys, so they start first.
        let block = blocks - 1 - task % blocks;
        let (b, head) = (task / blocks / g.kv_heads, task / blocks % g.kv_heads);
        // SAFETY: the processor supports the level; no two tasks share a query row.
        unsafe { compute(&Block::new(g, labels, b, head, block), q, k, v, &o, &lse, g.span(block), mask) };
    });
}

compiled! {
    tiled fn compute_block(block: &Block, q: &[f32], k: &[f32], v: &[f32], o: &Shared<f32>, lse: &Shared<f32>, span: [usize; 2], mask: Option<DropoutMask>) {
        let (g, rows, lanes) = (block.g, block.rows, block.lanes);
        let dim = g.dim;
        let mut scratch = Scratch::acquire();
        let turned = if S::TILED { DIM * TRANSPOSED_ROW } else { 0 };
        let lengths = [DIM * LANES, DIM * LANES, KEYS * LANES, KEYS * ROW, KEYS * ROW, turned];
        let [qt, ot, s, kp, vp, vt] = scratch.split(lengths);
        // SAFETY: the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        let _configured = S::TILED.then(|| unsafe { Configured::new() });
        // SAFETY: the processor has S's instructions; rows have `LANES` elements.
        unsafe {
            if S::TILED {
                let at = |lane| block.q_offset(lane);
                pack_along_transposed::<S>(Source { from: q, at, rows, dim, scale: g.scale }, LANES, qt);
            } else {
                transpose_rows::<S>(q, |lane| block.q_offset(lane), rows, dim, g.scale, qt);
                S::pair_rows(qt.as_ptr(), qt.as_mut_ptr(), LANES, dim, lanes);
            }
        }
        let mut top = [FLOOR; LANES];
        let mut sum = [0f32; LANES];
        let mut seen = [0f32; LANES];
        ot[..dim * LANES].fill(0.0);
        if !g.is_first() {
            resume(block, o, lse, ot, &mut top, &mut sum);
        }
        for from in (span[0]..span[1]).step_by(KEYS) {
            let count = KEYS.min(span[1] - from);
            let at = |r| block.kv_offset(from + r);
            // SAFETY: the processor has S's instructions; rows are packed at their strides, padded to a multiple of 32
            // where they are paired.
            unsafe {
                if S::TILED {
                    pack_along::<S>(Source { from: k, at, rows: count, dim, scale: 1.0 }, ROW, kp);
                } else {
                    pack(k, at, count, dim, 1.0, kp);
                    pack(v, at, count, dim, 1.0, vp);
                    S::pair_in_rows(kp.as_mut_ptr(), ROW, count, dim);
                }
                for ([lane, end], keys) in block.group_lanes(from, count) {
                    let [key, last] = align_to_tiles::<S>(keys);
                    let (kp, qt, s) = (kp[key * ROW..].as_ptr(), qt[lane..].as_ptr(), s[key * LANES + lane..].as_mut_ptr());
                    multiply::<S, ROW, 1, LANES>([last - key, end - lane, dim], kp, qt, s, LANES, false);
                }
            }
            block.hide(from, count, s, &mut seen);
            update_softmax::<S>(&mut s[..count * LANES], &mut top, &mut sum, &mut ot[..dim * LANES]);
            if let Some(mask) = &mask {
                mask.drop_weights(block, from, count, s);
            }
            if !S::TILED {
                add_non_finite_rows::<S>(block, from, count, vp, s, ot);
            }
            // SAFETY: the processor has S's instructions; rows are packed at their strides, padded to a multiple of 32
            // where they are paired.
            unsafe {
                if S::TILED {
                    let source = Source { from: v, at, rows: count, dim, scale: 1.0 };
                    if !pack_across_transposed::<S>(source, TRANSPOSED_ROW, vt) {
                        pack(v, at, count, dim, 1.0, vp);
                        add_non_finite_rows::<S>(block, from, count, vp, s, ot);
                        let source = Source { from: vp, at: |r| r * ROW, rows: count, dim, scale: 1.0 };
                        pack_across_transposed::<S>(source, TRANSPOSED_ROW, vt);
                    }
                } else {
                    S::pair_rows(vp.as_ptr(), vp.as_mut_ptr(), ROW, count, dim.next_multiple_of(16));
                }
                S::pair_rows(s.as_ptr(), s.as_mut_ptr(), LANES, count, lanes);
                // Tiles process whole registers along k and whole register rows of the output.
                let (vt, depth) = if S::TILED {
                    s[count.div_ceil(2) * LANES..count.next_multiple_of(TERMS) / 2 * LANES].fill(0.0);
                    (&*vt, dim.next_multiple_of(16))
                } else {
                    (&*vp, dim)
                };
                for ([lane, end], keys) in block.group_lanes(from, count) {
                    let [key, last] = align_to_tiles::<S>(keys);
                    let element = key / S::TERMS;
                    let vt = vt[if S::TILED { element } else { element * ROW }..].as_ptr();
                    let (s, ot) = (s[element * LANES + lane..].as_ptr(), ot[lane..].as_mut_ptr());
                    multiply::<S, 1, ROW, LANES>([depth, end - lane, last - key], vt, s, ot, LANES, true);
                }
            }
        }
        transpose_back::<S>(ot, rows, dim, kp);
        for lane in 0..rows {
            let (l, at) = (sum[lane], block.lse_index(lane));
            let (factor, total) = match () {
                // All visible weights are 0, so the result is undefined.
                _ if l == 0.0 && seen[lane] > 0.0 => (f32::NAN, f32::NAN),
                _ if l == 0.0 => (0.0, HIDDEN),
                _ => (1.0 / l, top[lane] + l.ln()),
            };
            // SAFETY: each task has exclusive access to its query rows.
            unsafe { lse.slice(at, 1)[0] = total };
            // SAFETY: each task has exclusive access to its query rows.
            let o = unsafe { o.slice(block.q_offset(lane), dim) };
            for (o, v) in o.iter_mut().zip(&kp[lane * ROW..]) {
                *o = if l == 0.0 { factor } else { v * factor };
            }
        }
    }
}

/// Continues from earlier windows of keys: their weights sum to 1 relative to a maximum of lse.
fn resume(
    block: &Block,
    o: &Shared<f32>,
    lse: &Shared<f32>,
    ot: &mut [f32],
    top: &mut [f32; LANES],
    sum: &mut [f32; LANES],
) {
    for lane in 0..block.rows {
        // SAFETY: each task has exclusive access to its query rows.
        let before = unsafe { lse.slice(block.lse_index(lane), 1)[0] };
        if before < FLOOR {
            continue;
        }
        (top[lane], sum[lane]) = (before, 1.0);
        // SAFETY: each task has exclusive access to its query rows.
        let o = unsafe { o.slice(block.q_offset(lane), block.g.dim) };
        for (d, o) in o.iter().enumerate() {
            ot[d * LANES + lane] = *o;
        }
    }
}

/// Replaces S by exp(S − top), updates the running maximum and sum, and rescales the earlier sums.
#[inline(always)]
fn update_softmax<S: Isa>(s: &mut [f32], top: &mut [f32; LANES], sum: &mut [f32; LANES], ot: &mut [f32]) {
    let mut highest = *top;
    for (i, highest) in highest.as_chunks_mut::<WIDE>().0.iter_mut().enumerate() {
        // A local copy; otherwise the maxima would go through memory for every row.
        let mut most = *highest;
        for row in s.chunks_exact(LANES) {
            for (m, v) in most.iter_mut().zip(&row[i * WIDE..]) {
                // NaN is ignored here; it stays NaN through exp.
                *m = if *v > *m { *v } else { *m };
            }
        }
        *highest = most;
    }
    let mut factor = [0f32; LANES];
    for (f, (old, new)) in factor.iter_mut().zip(top.iter().zip(&highest)) {
        *f = exp_or_zero::<S>(old - new);
    }
    if *top != highest {
        for row in ot.chunks_exact_mut(LANES) {
            for (v, f) in row.iter_mut().zip(&factor) {
                *v *= f;
            }
        }
    }
    let mut added = [0f32; LANES];
    for row in s.chunks_exact_mut(LANES) {
        for ((v, m), a) in row.iter_mut().zip(&highest).zip(&mut added) {
            *v = exp_or_zero::<S>(*v - m);
            *a += *v;
        }
    }
    for ((l, f), a) in sum.iter_mut().zip(&factor).zip(&added) {
        *l = *l * f + a;
    }
    *top = highest;
}

/// Takes rows of V with a value that is not finite out of the product and adds them separately to the rows that see
/// them. A hidden weight of 0 would turn such a value into NaN.
#[inline(always)]
fn add_non_finite_rows<S: Isa>(
    block: &Block,
    from: usize,
    count: usize,
    vp: &mut [f32],
    s: &[f32],
    ot: &mut [f32],
) {
    let dim = block.g.dim;
    // The smallest magnitude that rounds to infinity in bf16.
    let end = if S::TERMS == 2 { 0x7f7f_8000 } else { 0x7f80_0000 };
    let bits = |row: &[f32]| row.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff));
    for key in 0..count {
        let row = &mut vp[key * ROW..key * ROW + dim];
        if bits(row) < end {
            continue;
        }
        for lane in (0..block.rows).filter(|lane| block.sees(*lane, from + key)) {
            for (d, v) in row.iter().enumerate() {
                ot[d * LANES + lane] += s[key * LANES + lane] * v;
            }
        }
        row.fill(0.0);
    }
}
