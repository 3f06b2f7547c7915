//! The gradients: P is computed again from the log-sum-exp, one block of query rows at a time.
//!
//! dV = Pᵀ dO; dS = P ∘ (dO Vᵀ − δ), δ = Σ dO ∘ O; dQ = scale · dS K; dK = scale · dSᵀ Q: five products per tile. A
//! block's dQ is complete after its keys. dK and dV are summed by runs of blocks, each into its own part, and the parts
//! are added in a fixed order. The first version had one pass per gradient and computed S and dO Vᵀ twice: seven
//! products.

#[cfg(target_arch = "x86_64")]
use crate::simd::amx::Configured;
use crate::simd::{self, Level, compiled, dot, exp_or_zero, vectorised};
use crate::tasks::{Shared, each_chunk, each_row, each_task};

use super::dropped::DropoutMask;
use super::geometry::{DIM, Geometry, LANES};
use super::pairs::{Source, TERMS, pack_across, pack_across_transposed, pack_along, pack_along_transposed};
use super::product::multiply;
use super::{
    Block, FLOOR, KEYS, Labels, ROW, Scratch, TRANSPOSED_ROW, align_to_tiles, pack, transpose_back,
    transpose_rows,
};

/// The inputs of the gradients.
pub struct Inputs<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    /// The gradient of o, with the strides of q.
    pub d_o: &'a [f32],
    /// The log-sum-exp and δ: one number per query row.
    pub lse: &'a [f32],
    pub delta: &'a [f32],
    pub labels: Labels<'a>,
    pub mask: Option<DropoutMask>,
}

/// Computes δ = Σ dO ∘ O over rows of `dim` elements, one per element of `delta`.
pub fn compute_delta(d_o: &[f32], o: &[f32], dim: usize, delta: &mut [f32]) {
    let per_task = (16 * 1024 / dim).max(1);
    each_chunk(delta, per_task, |row, delta| {
        dot_rows(&d_o[row * dim..], &o[row * dim..], dim, delta);
    });
}

vectorised! {
    fn dot_rows(a: &[f32], b: &[f32], dim: usize, y: &mut [f32]) -> () {
        for ((y, a), b) in y.iter_mut().zip(a.chunks_exact(dim)).zip(b.chunks_exact(dim)) {
            *y = dot::<S>(a, b);
        }
    }
}

/// Computes the gradients of q, k and v for one window of keys, which are added to unless `g.is_first()`.
///
/// `d_q` has the strides of q, `d_k` and `d_v` the strides of k. `parts` holds `g.count_partials()` elements, of any
/// content.
/// `level` is at most the process's level.
///
/// # Panics
/// If an operand ends before `g` says, or the processor lacks the level.
pub fn backward(
    g: &Geometry,
    level: Level,
    threads: usize,
    inputs: &Inputs,
    d_q: &mut [f32],
    [d_k, d_v]: [&mut [f32]; 2],
    parts: &mut [f32],
) {
    assert!(level <= simd::level(), "attention: the processor lacks {}", level.name());
    let (d_q, outputs) = (&Shared::new(d_q), [Shared::new(d_k), Shared::new(d_v)]);
    let chunks = g.split_blocks();
    let width = g.dim.next_multiple_of(16);
    if let ([blocks], true) = (&chunks[..], g.is_first() && width == g.dim) {
        // One run sums all of a head's keys, directly in the output.
        each_task(threads, g.batch * g.kv_heads, |task| {
            let (b, head) = (task / g.kv_heads, task % g.kv_heads);
            let (at, extent) = (b * g.kv_batch + head * g.kv_head, (g.keys - 1) * g.kv_row + g.dim);
            let [d_k, d_v] = [0, 1].map(|i| outputs[i].at(at, extent));
            let sums = Sums { d_k, d_v, row: g.kv_row };
            // SAFETY: each task has exclusive access to one key/value head and its group of query heads.
            unsafe {
                sums.clear([0, g.keys], width);
                run(g, inputs, level, [b, head], *blocks, d_q, sums);
            }
        });
        return;
    }
    let size = 2 * g.keys * width;
    let each = Shared::new(parts);
    each_task(threads, g.batch * g.kv_heads * chunks.len(), |task| {
        let (b, head) = (task / chunks.len() / g.kv_heads, task / chunks.len() % g.kv_heads);
        let (blocks, d_k) = (chunks[task % chunks.len()], each.at(task * size, size));
        // SAFETY: each task has exclusive access to its part and its query rows.
        unsafe {
            let sums = Sums { d_k, d_v: d_k.add(g.keys * width), row: width };
            sums.clear(g.find_run_span(blocks), width);
            run(g, inputs, level, [b, head], blocks, d_q, sums);
        }
    });

    let parts = &*parts;
    let reach: Vec<[usize; 2]> = chunks.iter().map(|c| g.find_run_span(*c)).collect();
    each_row(g.batch * g.keys, 32, |row| {
        let (b, key) = (row / g.keys, row % g.keys);
        for head in 0..g.kv_heads {
            for (side, output) in outputs.iter().enumerate() {
                // SAFETY: each task has exclusive access to the rows of its keys.
                let y = unsafe { output.slice(b * g.kv_batch + key * g.kv_row + head * g.kv_head, g.dim) };
                if g.is_first() {
                    y.fill(0.0);
                }
                for (c, _) in reach.iter().enumerate().filter(|(_, r)| (r[0]..r[1]).contains(&key)) {
                    let at =
                        ((b * g.kv_heads + head) * chunks.len() + c) * size + (side * g.keys + key) * width;
                    y.iter_mut().zip(&parts[at..]).for_each(|(y, v)| *y += v);
                }
            }
        }
    });
}

/// The sums of dK and dV for one head: rows of D, rounded up to a multiple of 16, with a stride of `row` elements.
#[derive(Clone, Copy)]
struct Sums {
    d_k: *mut f32,
    d_v: *mut f32,
    row: usize,
}

impl Sums {
    /// # Safety
    /// Rows `from..to`, of `width`, must be valid and not in use elsewhere.
    unsafe fn clear(&self, [from, to]: [usize; 2], width: usize) {
        for at in (from..to).map(|key| key * self.row) {
            // SAFETY: the caller guarantees valid, exclusive rows.
            unsafe {
                self.d_k.add(at).write_bytes(0, width);
                self.d_v.add(at).write_bytes(0, width);
            }
        }
    }
}

/// Computes dQ for a run of blocks and adds their share to dK and dV.
///
/// # Safety
/// The processor must support the level. No other task may use these query rows or write the sums, which must cover the
/// keys that the blocks see.
unsafe fn run(
    g: &Geometry,
    inputs: &Inputs,
    level: Level,
    [b, head]: [usize; 2],
    blocks: [usize; 2],
    d_q: &Shared<f32>,
    sums: Sums,
) {
    for block in blocks[0]..blocks[1] {
        let of = Block::new(g, inputs.labels, b, head, block);
        // SAFETY: guaranteed by the caller.
        unsafe { compute_block(level)(&of, inputs, g.span(block), d_q, sums) };
    }
}

compiled! {
    tiled fn compute_block(
        block: &Block,
        x: &Inputs,
        span: [usize; 2],
        d_q: &Shared<f32>,
        sums: Sums,
    ) {
        let (g, rows, lanes) = (block.g, block.rows, block.lanes);
        let (dim, width) = (g.dim, g.dim.next_multiple_of(16));
        const SPREAD: usize = DIM * LANES;
        const TILE: usize = KEYS * ROW;
        const SCORES: usize = KEYS * LANES;
        // The products along the other side need separate pairs.
        let [keys, scores] = if S::TERMS == 2 { [TILE, SCORES] } else { [0, 0] };
        const { assert!(DIM * TRANSPOSED_ROW <= TILE) };
        let lengths = [SPREAD, SPREAD, SPREAD, SCORES, SCORES, TILE, TILE, TILE, TILE, keys, scores];
        let mut scratch = Scratch::acquire();
        let [qt, dt, d_qt, p, ds, qr, dr, kp, vp, kp2, ds2] = scratch.split(lengths);
        // SAFETY: the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        let _configured = S::TILED.then(|| unsafe { Configured::new() });
        let at = |lane| block.q_offset(lane);
        // SAFETY: the processor has S's instructions; rows are packed at their strides, padded to a multiple of 32
        // where they are paired.
        unsafe {
            if S::TILED {
                let q = Source { from: x.q, at, rows, dim, scale: g.scale };
                let d_o = Source { from: x.d_o, scale: 1.0, ..q };
                pack_along_transposed::<S>(q, LANES, qt);
                pack_along_transposed::<S>(d_o, LANES, dt);
                pack_across::<S>(q, ROW, qr);
                pack_across::<S>(d_o, ROW, dr);
            } else {
                transpose_rows::<S>(x.q, at, rows, dim, g.scale, qt);
                transpose_rows::<S>(x.d_o, at, rows, dim, 1.0, dt);
                pack(x.q, at, rows, dim, g.scale, qr);
                pack(x.d_o, at, rows, dim, 1.0, dr);
                S::pair_rows(qt.as_ptr(), qt.as_mut_ptr(), LANES, dim, lanes);
                S::pair_rows(dt.as_ptr(), dt.as_mut_ptr(), LANES, dim, lanes);
                S::pair_rows(qr.as_ptr(), qr.as_mut_ptr(), ROW, rows, width);
                S::pair_rows(dr.as_ptr(), dr.as_mut_ptr(), ROW, rows, width);
            }
        }
        d_qt[..dim * LANES].fill(0.0);
        let mut lse = [0f32; LANES];
        let mut delta = [0f32; LANES];
        for lane in 0..rows {
            let l = x.lse[block.lse_index(lane)];
            // So far above hidden scores that exp gives 0, even for a row that sees nothing.
            lse[lane] = if l < FLOOR { FLOOR } else { l };
            delta[lane] = x.delta[block.lse_index(lane)];
        }
        let mut seen = [0f32; LANES];
        for from in (span[0]..span[1]).step_by(KEYS) {
            let count = KEYS.min(span[1] - from);
            let at = |r| block.kv_offset(from + r);
            // SAFETY: the processor has S's instructions; rows are packed at their strides, padded to a multiple of 32
            // where they are paired.
            unsafe {
                if S::TILED {
                    let k = Source { from: x.k, at, rows: count, dim, scale: 1.0 };
                    pack_along::<S>(k, ROW, kp);
                    pack_along::<S>(Source { from: x.v, ..k }, ROW, vp);
                    pack_across_transposed::<S>(k, TRANSPOSED_ROW, kp2);
                } else {
                    pack(x.k, at, count, dim, 1.0, kp);
                    pack(x.v, at, count, dim, 1.0, vp);
                    S::pair_rows(kp.as_ptr(), kp2.as_mut_ptr(), ROW, count, width);
                    S::pair_in_rows(kp.as_mut_ptr(), ROW, count, dim);
                    S::pair_in_rows(vp.as_mut_ptr(), ROW, count, dim);
                }
                for ([lane, end], [first, seen]) in block.group_lanes(from, count) {
                    let [key, last] = align_to_tiles::<S>([first, seen]);
                    let (size, at) = ([last - key, end - lane, dim], key * LANES + lane);
                    let (kp, vp) = (kp[key * ROW..].as_ptr(), vp[key * ROW..].as_ptr());
                    let (qt, dt) = (qt[lane..].as_ptr(), dt[lane..].as_ptr());
                    multiply::<S, ROW, 1, LANES>(size, kp, qt, p[at..].as_mut_ptr(), LANES, false);
                    multiply::<S, ROW, 1, LANES>(size, vp, dt, ds[at..].as_mut_ptr(), LANES, false);
                    // Hidden weights are 0 in p; here the values only need to be finite.
                    for hidden in (0..first).chain(seen..count) {
                        ds[hidden * LANES + lane..hidden * LANES + end].fill(0.0);
                    }
                }
            }
            block.hide(from, count, p, &mut seen);
            if let Some(mask) = &x.mask {
                mask.apply_to_gradients::<S>(block, from, [&mut p[..count * LANES], ds], &lse, &delta);
            }
            for (p, ds) in p[..count * LANES].chunks_exact_mut(LANES).zip(ds.chunks_exact_mut(LANES)) {
                if x.mask.is_none() {
                    for (((p, ds), l), delta) in p.iter_mut().zip(ds.iter_mut()).zip(&lse).zip(&delta) {
                        *p = exp_or_zero::<S>(*p - l);
                        *ds = *p * (*ds - delta);
                    }
                }
                if S::TERMS == 2 {
                    // The padding after the last lane has undefined values.
                    let end = rows.next_multiple_of(if S::TILED { TERMS } else { 2 });
                    p[rows..end].fill(0.0);
                    ds[rows..end].fill(0.0);
                }
            }
            // SAFETY: the processor has S's instructions; rows are packed at their strides, padded to a multiple of 32
            // where they are paired.
            unsafe {
                S::pair_rows(ds.as_ptr(), ds2.as_mut_ptr(), LANES, count, lanes);
                if S::TILED {
                    ds2[count.div_ceil(2) * LANES..count.next_multiple_of(TERMS) / 2 * LANES].fill(0.0);
                }
                S::pair_in_rows(p.as_mut_ptr(), LANES, count, rows);
                S::pair_in_rows(ds.as_mut_ptr(), LANES, count, rows);
                let Sums { d_k, d_v, row } = sums;
                for ([key, last], lanes) in block.group_keys(from, count) {
                    let [lane, end] = align_to_tiles::<S>(lanes);
                    let (size, element) = ([last - key, width, end - lane], lane / S::TERMS);
                    let (at, to) = (key * LANES + element, (from + key) * row);
                    let (dr, qr) = (dr[element * ROW..].as_ptr(), qr[element * ROW..].as_ptr());
                    multiply::<S, LANES, 1, ROW>(size, p[at..].as_ptr(), dr, d_v.add(to), row, true);
                    multiply::<S, LANES, 1, ROW>(size, ds[at..].as_ptr(), qr, d_k.add(to), row, true);
                }
                let (kp, ds) = if S::TERMS == 2 { (&*kp2, &*ds2) } else { (&*kp, &*ds) };
                let depth = if S::TILED { dim.next_multiple_of(16) } else { dim };
                for ([lane, end], keys) in block.group_lanes(from, count) {
                    let [key, last] = align_to_tiles::<S>(keys);
                    let (size, element) = ([depth, end - lane, last - key], key / S::TERMS);
                    let kp = kp[if S::TILED { element } else { element * ROW }..].as_ptr();
                    let (ds, d_qt) = (ds[element * LANES + lane..].as_ptr(), d_qt[lane..].as_mut_ptr());
                    multiply::<S, 1, ROW, LANES>(size, kp, ds, d_qt, LANES, true);
                }
            }
        }
        transpose_back::<S>(d_qt, rows, dim, qr);
        for lane in 0..rows {
            // SAFETY: each task has exclusive access to its query rows.
            let y = unsafe { d_q.slice(block.q_offset(lane), dim) };
            for (y, v) in y.iter_mut().zip(&qr[lane * ROW..]) {
                let v = v * g.scale;
                *y = if g.is_first() { v } else { *y + v };
            }
        }
    }
}
