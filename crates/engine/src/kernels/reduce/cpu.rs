//! The native twin: 64 terms at a time in f32 lanes, their sums in f64.

use rayon::prelude::*;

use crate::device::cpu::{CpuLaunch, Shared};

const SUM: u32 = 0;
const SUM_SQUARES: u32 = 1;
const ARG_MAX: u32 = 3;

pub fn reduce(l: &CpuLaunch) {
    let x = l.read::<f32>(0);
    let (n, inner, rows) = (l.u32(0), l.u32(1), l.u32(2));
    let (row_stride, inner_stride, y_stride) = (l.u32(3), l.u32(4), l.u32(5));
    let (first, begin) = (l.u32(6) == 1, l.u32(7));
    if l.params[0] == ARG_MAX {
        let y = Shared::new(l.write::<i32>(1));
        (0..rows * inner).into_par_iter().with_min_len((4096 / n.max(1)).max(1)).for_each(|id| {
            let (row, column) = (id / inner, id % inner);
            let base = row * row_stride + column;
            let at = |k: usize| x[base + k * inner_stride];
            let best = (1..n).fold(0, |best, k| {
                if !at(best).is_nan() && (at(k).is_nan() || at(k) > at(best)) { k } else { best }
            });
            unsafe { y.slice(row * y_stride + column, 1)[0] = (begin + best) as i32 };
        });
        return;
    }
    let kind = l.params[0];
    let y = Shared::new(l.write::<f32>(1));
    let settle = |at: usize, v: f32| {
        let y = &mut unsafe { y.slice(at, 1) }[0];
        *y = if first { v } else { combine(kind, *y, v) };
    };
    if l.params[1] == 0 {
        (0..rows).into_par_iter().with_min_len((8192 / n.max(1)).max(1)).for_each(|row| {
            let x = &x[row * row_stride..row * row_stride + n];
            let v = match kind {
                SUM => x.chunks(64).map(|c| lanes(c, |v| v) as f64).sum::<f64>() as f32,
                SUM_SQUARES => x.chunks(64).map(|c| lanes(c, |v| v * v) as f64).sum::<f64>() as f32,
                _ => x.iter().fold(f32::NEG_INFINITY, |a, b| combine(kind, a, *b)),
            };
            settle(row * y_stride, v);
        });
        return;
    }
    // Columns: a block of neighbouring columns walks the rows together.
    const WIDTH: usize = 64;
    let blocks = inner.div_ceil(WIDTH);
    (0..rows * blocks).into_par_iter().for_each(|task| {
        let (row, from) = (task / blocks, task % blocks * WIDTH);
        let width = WIDTH.min(inner - from);
        let mut total = [if kind <= SUM_SQUARES { 0.0f64 } else { f64::NEG_INFINITY }; WIDTH];
        for k in 0..n {
            let at = row * row_stride + k * inner_stride + from;
            for (t, v) in total[..width].iter_mut().zip(&x[at..at + width]) {
                *t = match kind {
                    SUM => *t + *v as f64,
                    SUM_SQUARES => *t + (*v as f64) * (*v as f64),
                    _ => combine(kind, *t as f32, *v) as f64,
                };
            }
        }
        for (c, t) in total[..width].iter().enumerate() {
            settle(row * y_stride + from + c, *t as f32);
        }
    });
}

fn combine(kind: u32, a: f32, b: f32) -> f32 {
    match kind {
        SUM | SUM_SQUARES => a + b,
        _ if a.is_nan() || b.is_nan() => f32::NAN,
        _ => a.max(b),
    }
}

/// Sums up to 64 terms in eight lanes.
fn lanes(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; 8];
    let chunks = x.chunks_exact(8);
    let tail: f32 = chunks.remainder().iter().map(|v| f(*v)).sum();
    for c in chunks {
        for (s, v) in sums.iter_mut().zip(c) {
            *s += f(*v);
        }
    }
    sums.iter().sum::<f32>() + tail
}
