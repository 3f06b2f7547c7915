//! The native twins: 1,024 terms at a time in f32 lanes, their sums in f64.

use rayon::prelude::*;

use crate::device::cpu::{CpuLaunch, Shared};
use crate::kernels::numeric::{Isa, max, sum, sum_by, vectorised};

const SUM: u32 = 0;
const SUM_SQUARES: u32 = 1;
/// Terms that are summed in f32.
const SPAN: usize = 1024;
/// Neighbouring columns that walk the rows together, and rows that they sum in f32.
const WIDTH: usize = 128;
const DEPTH: usize = 32;

pub fn reduce(l: &CpuLaunch) {
    let x = l.read::<f32>(0);
    let (n, inner, rows, chunks) = (l.u32(0), l.u32(1), l.u32(2), l.u32(3));
    let (first, scale) = (l.u32(9) == 1, l.f32(10));
    let kind = l.params[0];
    let x_at = |row: usize| row / chunks * l.u32(4) + row % chunks * l.u32(5);
    let y_at = |row: usize| row / chunks * l.u32(7) + row % chunks * l.u32(8);
    let y = Shared::new(l.write::<f32>(1));
    let settle = |at: usize, v: f32| {
        let y = &mut unsafe { y.slice(at, 1) }[0];
        *y = match (first, kind) {
            (true, _) => v * scale,
            (false, SUM | SUM_SQUARES) => *y + v * scale,
            _ => larger(*y, v),
        };
    };
    if l.params[1] == 0 {
        (0..rows).into_par_iter().with_min_len((16 * 1024 / n).max(1)).for_each(|row| {
            settle(y_at(row), reduce_row(kind, &x[x_at(row)..][..n]));
        });
        return;
    }
    let step = l.u32(6);
    let blocks = inner.div_ceil(WIDTH);
    let min = (16 * 1024 / (n * WIDTH.min(inner))).max(1);
    (0..rows * blocks).into_par_iter().with_min_len(min).for_each(|task| {
        let (row, from) = (task / blocks, task % blocks * WIDTH);
        let width = WIDTH.min(inner - from);
        let mut total = [0f64; WIDTH];
        reduce_columns(kind, &x[x_at(row) + from..], n, step, &mut total[..width]);
        for (c, t) in total[..width].iter().enumerate() {
            settle(y_at(row) + from + c, *t as f32);
        }
    });
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// A sum with 0 times each is NaN where one is NaN or infinite: only then is NaN looked for.
#[inline(always)]
fn has_nan<S: Isa>(x: &[f32]) -> bool {
    sum_by::<S>(x, |v| v * 0.0).is_nan() && x.iter().any(|v| v.is_nan())
}

vectorised! {
    fn reduce_row(kind: u32, x: &[f32]) -> f32 {
        match kind {
            SUM => x.chunks(SPAN).map(|c| sum::<S>(c) as f64).sum::<f64>() as f32,
            SUM_SQUARES => x.chunks(SPAN).map(|c| sum_by::<S>(c, |v| v * v) as f64).sum::<f64>() as f32,
            _ if has_nan::<S>(x) => f32::NAN,
            _ => max::<S>(x),
        }
    }

    fn first_maximum(x: &[f32]) -> usize {
        let first = if has_nan::<S>(x) {
            x.iter().position(|v| v.is_nan())
        } else {
            let largest = max::<S>(x);
            x.iter().position(|v| *v == largest)
        };
        first.expect("the maximum is one of them")
    }

    fn reduce_columns(kind: u32, x: &[f32], n: usize, step: usize, total: &mut [f64]) {
        let width = total.len();
        total.fill(if kind <= SUM_SQUARES { 0.0 } else { f64::NEG_INFINITY });
        for from in (0..n).step_by(DEPTH) {
            let mut part = [if kind <= SUM_SQUARES { 0f32 } else { f32::NEG_INFINITY }; WIDTH];
            let part = &mut part[..width];
            for k in from..(from + DEPTH).min(n) {
                let x = &x[k * step..][..width];
                match kind {
                    SUM => part.iter_mut().zip(x).for_each(|(t, v)| *t += v),
                    SUM_SQUARES => part.iter_mut().zip(x).for_each(|(t, v)| *t = S::fma(*v, *v, *t)),
                    _ => part.iter_mut().zip(x).for_each(|(t, v)| *t = larger(*t, *v)),
                }
            }
            for (t, v) in total.iter_mut().zip(part) {
                *t = if kind <= SUM_SQUARES { *t + *v as f64 } else { larger(*t as f32, *v) as f64 };
            }
        }
    }
}

pub fn argmax(l: &CpuLaunch, of_parts: bool) {
    let x = l.read::<f32>(0);
    let from = of_parts.then(|| l.read::<i32>(1));
    let (n, inner, rows, chunks) = (l.u32(0), l.u32(1), l.u32(2), l.u32(3));
    let (x_chunk, step) = (l.u32(5), l.u32(6));
    let (first, begin) = (l.u32(9) == 1, l.u32(10));
    let value = Shared::new(l.write::<f32>(1 + of_parts as usize));
    let y = Shared::new(l.write::<i32>(2 + of_parts as usize));
    let beats = |v: f32, best: f32| v > best || (v.is_nan() && !best.is_nan());
    (0..rows * inner).into_par_iter().with_min_len((4096 / n).max(1)).for_each(|id| {
        let (row, column) = (id / inner, id % inner);
        let base = row / chunks * l.u32(4) + row % chunks * x_chunk + column;
        let at = |k: usize| x[base + k * step];
        let k = if step == 1 {
            first_maximum(&x[base..base + n])
        } else {
            (1..n).fold(0, |best, k| if beats(at(k), at(best)) { k } else { best })
        };
        let index = match from {
            Some(from) => from[base + k * step],
            None => (begin + row % chunks * (x_chunk / step) + k) as i32,
        };
        let to = row / chunks * l.u32(7) + row % chunks * l.u32(8) + column;
        let (value, y) = unsafe { (&mut value.slice(to, 1)[0], &mut y.slice(to, 1)[0]) };
        if first || beats(at(k), *value) {
            (*value, *y) = (at(k), index);
        }
    });
}

pub fn place(l: &CpuLaunch) {
    let (index, d) = (l.read::<i32>(0), l.read::<f32>(1));
    let (rows, n, inner) = (l.u32(0), l.u32(1), l.u32(2));
    let (y_outer, step, begin) = (l.u32(3), l.u32(4), l.u32(5));
    let y = Shared::new(l.write::<f32>(2));
    (0..rows * n).into_par_iter().with_min_len((16 * 1024 / inner).max(1)).for_each(|id| {
        let (row, k) = (id / n, id % n);
        let from = row * step;
        let y = unsafe { y.slice(row * y_outer + k * step, inner) };
        for ((y, i), d) in y.iter_mut().zip(&index[from..]).zip(&d[from..]) {
            *y = if *i as usize == begin + k { *d } else { 0.0 };
        }
    });
}
