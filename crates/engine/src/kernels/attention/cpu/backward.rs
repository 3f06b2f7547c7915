//! The gradients: P is made again from the log-sum-exp, a block of query rows at a time.
//!
//! dV = Pᵀ dO; dS = P ∘ (dO Vᵀ − δ), δ = Σ dO ∘ O; dQ = scale · dS K; dK = scale · dSᵀ Q: five
//! products a tile. A block's dQ is whole when its keys are done; dK and dV are summed by runs of
//! blocks, each into a part of its own, and the parts added in order. The first form, one pass a
//! gradient, made S and dO Vᵀ twice: seven products.

use super::super::geometry::{DIM, Geometry, LANES};
use super::simd::{Simd, for_each_isa, product};
use super::{Block, FLOOR, KEYS, Labels, ROW, Scratch, pack, spread, turn_back};
use crate::device::cpu::{CpuLaunch, Shared, each_chunk, each_row, each_task};
use crate::kernels::numeric::{dot, exp_or_zero, vectorised};

struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    d_o: &'a [f32],
    lse: &'a [f32],
    delta: &'a [f32],
    labels: Labels<'a>,
}

impl<'a> Inputs<'a> {
    fn of(l: &'a CpuLaunch) -> Self {
        Inputs {
            q: l.read(0),
            k: l.read(1),
            v: l.read(2),
            d_o: l.read(3),
            lse: l.read(4),
            delta: l.read(5),
            labels: Labels { query_segment: l.read(6), key_segment: l.read(7), mask: l.read(8) },
        }
    }
}

/// δ = Σ dO ∘ O over rows of D.
pub fn delta(l: &CpuLaunch) {
    let dim = l.u32(1);
    let (d_o, o) = (l.read::<f32>(0), l.read::<f32>(1));
    let per_task = (16 * 1024 / dim).max(1);
    each_chunk(l.write::<f32>(2), per_task, |row, delta| {
        rows_dot(&d_o[row * dim..], &o[row * dim..], dim, delta);
    });
}

vectorised! {
    fn rows_dot(a: &[f32], b: &[f32], dim: usize, y: &mut [f32]) -> () {
        for ((y, a), b) in y.iter_mut().zip(a.chunks_exact(dim)).zip(b.chunks_exact(dim)) {
            *y = dot::<S>(a, b);
        }
    }
}

/// All three gradients.
pub fn backward(l: &CpuLaunch) {
    let d_q = Shared::new(l.write::<f32>(9));
    keys(l, Some(&d_q), [10, 11], l.write(12));
}

/// The gradients of K and V.
pub fn backward_kv(l: &CpuLaunch) {
    let g = Geometry::of(l);
    // Never planned for this device, so this scratch is not the pool's.
    let mut parts = vec![0.0; g.parts()];
    keys(l, None, [9, 10], &mut parts);
}

/// The gradient of Q.
pub fn backward_q(l: &CpuLaunch) {
    let g = Geometry::of(l);
    let inputs = Inputs::of(l);
    let d_q = Shared::new(l.write::<f32>(9));
    let blocks = g.blocks();
    each_task(l.threads, g.batch * g.kv_heads * blocks, |task| {
        let (b, head) = (task / blocks / g.kv_heads, task / blocks % g.kv_heads);
        let block = blocks - 1 - task % blocks;
        run(&g, &inputs, [b, head], [block, block + 1], Some(&d_q), None);
    });
}

fn keys(l: &CpuLaunch, d_q: Option<&Shared<f32>>, outputs: [usize; 2], parts: &mut [f32]) {
    let g = Geometry::of(l);
    let inputs = Inputs::of(l);
    let chunks = g.chunks();
    let width = g.dim.next_multiple_of(16);
    let size = 2 * g.keys * width;
    let each = Shared::new(parts);
    each_task(l.threads, g.batch * g.kv_heads * chunks.len(), |task| {
        let (b, head) = (task / chunks.len() / g.kv_heads, task / chunks.len() % g.kv_heads);
        let part = unsafe { each.slice(task * size, size) };
        run(&g, &inputs, [b, head], chunks[task % chunks.len()], d_q, Some(part));
    });

    let parts = &*parts;
    let reach: Vec<[usize; 2]> = chunks.iter().map(|c| g.reach(*c)).collect();
    let outputs = outputs.map(|i| Shared::new(l.write::<f32>(i)));
    each_row(g.batch * g.keys, 32, |row| {
        let (b, key) = (row / g.keys, row % g.keys);
        for head in 0..g.kv_heads {
            for (side, output) in outputs.iter().enumerate() {
                let y = unsafe { output.slice(b * g.kv_batch + key * g.kv_row + head * g.dim, g.dim) };
                if g.first {
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

/// A run of blocks: their dQ, and what they add to dK and dV, as `part` = [dK | dV] of
/// [keys, D to a multiple of 16].
fn run(
    g: &Geometry,
    inputs: &Inputs,
    [b, head]: [usize; 2],
    blocks: [usize; 2],
    d_q: Option<&Shared<f32>>,
    part: Option<&mut [f32]>,
) {
    let width = g.dim.next_multiple_of(16);
    let mut part = part.map(|part| part.split_at_mut(g.keys * width));
    if let Some((d_k, d_v)) = &mut part {
        let [from, to] = g.reach(blocks);
        d_k[from * width..to * width].fill(0.0);
        d_v[from * width..to * width].fill(0.0);
    }
    for block in blocks[0]..blocks[1] {
        let parts = part.as_mut().map(|(d_k, d_v)| [&mut **d_k, &mut **d_v]);
        one_block(&Block::new(g, inputs.labels, b, head, block), inputs, g.span(block), d_q, parts);
    }
}

for_each_isa! {
    fn one_block[block.g.rounded](
        block: &Block,
        x: &Inputs,
        span: [usize; 2],
        d_q: Option<&Shared<f32>>,
        parts: Option<[&mut [f32]; 2]>,
    ) {
        let (g, rows, lanes) = (block.g, block.rows, block.lanes);
        let (dim, width) = (g.dim, g.dim.next_multiple_of(16));
        let mut parts = parts;
        const SPREAD: usize = DIM * LANES;
        const TILE: usize = KEYS * ROW;
        const SCORES: usize = KEYS * LANES;
        // Pairs along the other side need copies of their own.
        let [keys, scores] = if V::TERMS == 2 { [TILE, SCORES] } else { [0, 0] };
        let lengths = [SPREAD, SPREAD, SPREAD, SCORES, SCORES, TILE, TILE, TILE, TILE, keys, scores];
        let mut scratch = Scratch::take();
        let [qt, dt, d_qt, p, ds, qr, dr, kp, vp, kp2, ds2] = scratch.cut(lengths);
        spread::<V>(x.q, |lane| block.q_at(lane), rows, dim, g.scale, qt);
        spread::<V>(x.d_o, |lane| block.q_at(lane), rows, dim, 1.0, dt);
        pack(x.q, |lane| block.q_at(lane), rows, dim, g.scale, qr);
        pack(x.d_o, |lane| block.q_at(lane), rows, dim, 1.0, dr);
        unsafe {
            V::pair_rows(qt.as_ptr(), qt.as_mut_ptr(), LANES, dim, lanes);
            V::pair_rows(dt.as_ptr(), dt.as_mut_ptr(), LANES, dim, lanes);
            V::pair_rows(qr.as_ptr(), qr.as_mut_ptr(), ROW, rows, width);
            V::pair_rows(dr.as_ptr(), dr.as_mut_ptr(), ROW, rows, width);
        }
        d_qt[..dim * LANES].fill(0.0);
        let mut lse = [0f32; LANES];
        let mut delta = [0f32; LANES];
        for lane in 0..rows {
            let l = x.lse[block.lse_at(lane)];
            // Above hidden scores by more than exp can see, where nothing is seen too.
            lse[lane] = if l < FLOOR { FLOOR } else { l };
            delta[lane] = x.delta[block.lse_at(lane)];
        }
        let mut seen = [0f32; LANES];
        for from in (span[0]..span[1]).step_by(KEYS) {
            let count = KEYS.min(span[1] - from);
            pack(x.k, |r| block.kv_at(from + r), count, dim, 1.0, kp);
            pack(x.v, |r| block.kv_at(from + r), count, dim, 1.0, vp);
            unsafe {
                V::pair_rows(kp.as_ptr(), kp2.as_mut_ptr(), ROW, count, width);
                V::pair_in_rows(kp.as_mut_ptr(), ROW, count, dim);
                V::pair_in_rows(vp.as_mut_ptr(), ROW, count, dim);
                product::<V, ROW, 1, LANES>([count, lanes, dim], kp.as_ptr(), qt.as_ptr(), p.as_mut_ptr(), LANES, false);
                product::<V, ROW, 1, LANES>([count, lanes, dim], vp.as_ptr(), dt.as_ptr(), ds.as_mut_ptr(), LANES, false);
            }
            block.hide(from, count, p, &mut seen);
            for (p, ds) in p[..count * LANES].chunks_exact_mut(LANES).zip(ds.chunks_exact_mut(LANES)) {
                for (((p, ds), l), delta) in p.iter_mut().zip(ds.iter_mut()).zip(&lse).zip(&delta) {
                    *p = exp_or_zero::<V>(*p - l);
                    *ds = *p * (*ds - delta);
                }
                if V::TERMS == 2 && rows % 2 == 1 {
                    // The partner of the last lane, of which nothing is known.
                    (p[rows], ds[rows]) = (0.0, 0.0);
                }
            }
            unsafe {
                V::pair_rows(ds.as_ptr(), ds2.as_mut_ptr(), LANES, count, lanes);
                V::pair_in_rows(p.as_mut_ptr(), LANES, count, rows);
                V::pair_in_rows(ds.as_mut_ptr(), LANES, count, rows);
                if let Some([d_k, d_v]) = &mut parts {
                    let at = from * width;
                    let size = [count, width, rows];
                    product::<V, LANES, 1, ROW>(size, p.as_ptr(), dr.as_ptr(), d_v[at..].as_mut_ptr(), width, true);
                    product::<V, LANES, 1, ROW>(size, ds.as_ptr(), qr.as_ptr(), d_k[at..].as_mut_ptr(), width, true);
                }
                if d_q.is_some() {
                    let (kp, ds) = if V::TERMS == 2 { (&*kp2, &*ds2) } else { (&*kp, &*ds) };
                    product::<V, 1, ROW, LANES>([dim, lanes, count], kp.as_ptr(), ds.as_ptr(), d_qt.as_mut_ptr(), LANES, true);
                }
            }
        }
        let Some(d_q) = d_q else { return };
        turn_back::<V>(d_qt, rows, dim, qr);
        for lane in 0..rows {
            let y = unsafe { d_q.slice(block.q_at(lane), dim) };
            for (y, v) in y.iter_mut().zip(&qr[lane * ROW..]) {
                let v = v * g.scale;
                *y = if g.first { v } else { *y + v };
            }
        }
    }
}
