//! The CPU implementations: spans of 1,024 terms in f32 lanes, their sums in f64.

use lowrank_cpu::simd::{Fma, max, min, sum, sum_by, vectorised};
use lowrank_cpu::tasks::{Shared, each_row};

use super::argmax::{ArgmaxScalars, PlaceScalars};
use super::{ReduceScalars, Reduction, Rows};
use crate::dtype::DType;
use crate::kernel::native::NativeLaunch;

const SUM: u32 = Reduction::Sum as u32;
const MAX: u32 = Reduction::Max as u32;
/// Terms that are summed in f32.
const SPAN: usize = 1024;
/// Neighbouring columns that are processed together, and the number of rows that they sum in f32.
const WIDTH: usize = 128;
const DEPTH: usize = 32;

pub fn reduce(l: &NativeLaunch) {
    if l.dtype(0) == DType::I32 {
        return reduce_whole(l);
    }
    let x = l.read::<f32>(0);
    let ReduceScalars { rows: all, scale } = l.scalars();
    let Rows { n, inner, rows, x_step: step, first, .. } = all;
    let kind = l.params[0];
    let y = Shared::new(l.write::<f32>(1));
    let store = |at: usize, v: f32| {
        // SAFETY: callers write each row once, in one task.
        let y = &mut unsafe { y.slice(at, 1) }[0];
        *y = match (first, kind) {
            (true, _) => v * scale,
            (false, SUM) => *y + v * scale,
            _ => pick_extreme(kind, *y, v),
        };
    };
    if l.params[1] == 0 {
        each_row(rows, 16 * 1024 / n, |row| {
            store(all.y_at(row), reduce_row(kind, &x[all.x_at(row)..][..n]));
        });
        return;
    }
    let blocks = inner.div_ceil(WIDTH);
    each_row(rows * blocks, 16 * 1024 / (n * WIDTH.min(inner)), |task| {
        let (row, from) = (task / blocks, task % blocks * WIDTH);
        let width = WIDTH.min(inner - from);
        let mut total = [0f64; WIDTH];
        reduce_columns(kind, &x[all.x_at(row) + from..], n, step, &mut total[..width]);
        for (c, t) in total[..width].iter().enumerate() {
            store(all.y_at(row) + from + c, *t as f32);
        }
    });
}

/// Returns the larger for `MAX`, otherwise the smaller; NaN if one is NaN.
#[inline(always)]
fn pick_extreme(kind: u32, a: f32, b: f32) -> f32 {
    let keeps_a = if kind == MAX { a > b } else { a < b };
    if keeps_a || a.is_nan() { a } else { b }
}

/// Reductions of i32; sums wrap.
fn reduce_whole(l: &NativeLaunch) {
    let x = l.read::<i32>(0);
    let ReduceScalars { rows: all, .. } = l.scalars();
    let Rows { n, inner, rows, x_step: step, first, .. } = all;
    let kind = l.params[0];
    let y = Shared::new(l.write::<i32>(1));
    let combine = |a: i32, b: i32| match kind {
        SUM => a.wrapping_add(b),
        MAX => a.max(b),
        _ => a.min(b),
    };
    each_row(rows, 16 * 1024 / (n * inner), |row| {
        let from = all.x_at(row);
        // SAFETY: each row belongs to one task.
        let y = unsafe { y.slice(all.y_at(row), inner) };
        for k in 0..n {
            let x = &x[from + k * step..][..inner];
            match first && k == 0 {
                true => y.copy_from_slice(x),
                false => y.iter_mut().zip(x).for_each(|(y, x)| *y = combine(*y, *x)),
            }
        }
    });
}

/// Adds 0 · x for all elements: the sum is NaN if one is NaN or infinite. Only then searches for NaN.
#[inline(always)]
fn has_nan<S: Fma>(x: &[f32]) -> bool {
    sum_by::<S>(x, |v| v * 0.0).is_nan() && x.iter().any(|v| v.is_nan())
}

vectorised! {
    fn reduce_row(kind: u32, x: &[f32]) -> f32 {
        match kind {
            SUM => x.chunks(SPAN).map(|c| sum::<S>(c) as f64).sum::<f64>() as f32,
            _ if has_nan::<S>(x) => f32::NAN,
            MAX => max::<S>(x),
            _ => min::<S>(x),
        }
    }

    fn find_first_extreme(smallest: bool, x: &[f32]) -> usize {
        let first = if has_nan::<S>(x) {
            x.iter().position(|v| v.is_nan())
        } else {
            let extreme = if smallest { min::<S>(x) } else { max::<S>(x) };
            x.iter().position(|v| *v == extreme)
        };
        first.expect("the extreme is one of them")
    }

    fn reduce_columns(kind: u32, x: &[f32], n: usize, step: usize, total: &mut [f64]) {
        let width = total.len();
        let start = match kind {
            SUM => 0f32,
            MAX => f32::NEG_INFINITY,
            _ => f32::INFINITY,
        };
        total.fill(start as f64);
        for from in (0..n).step_by(DEPTH) {
            let mut part = [start; WIDTH];
            let part = &mut part[..width];
            for k in from..(from + DEPTH).min(n) {
                let x = &x[k * step..][..width];
                match kind {
                    SUM => part.iter_mut().zip(x).for_each(|(t, v)| *t += v),
                    MAX => part.iter_mut().zip(x).for_each(|(t, v)| *t = pick_extreme(MAX, *t, *v)),
                    _ => part.iter_mut().zip(x).for_each(|(t, v)| *t = pick_extreme(kind, *t, *v)),
                }
            }
            for (t, v) in total.iter_mut().zip(part) {
                *t = if kind == SUM { *t + *v as f64 } else { pick_extreme(kind, *t as f32, *v) as f64 };
            }
        }
    }
}

pub fn argmax(l: &NativeLaunch, of_parts: bool) {
    let smallest = l.params[0] == 1;
    if l.dtype(0) == DType::I32 {
        let beats = move |v: i32, best: i32| if smallest { v < best } else { v > best };
        return find_first(l, of_parts, beats, |_| None);
    }
    let beats = move |v: f32, best: f32| {
        let is_further = if smallest { v < best } else { v > best };
        is_further || (v.is_nan() && !best.is_nan())
    };
    find_first(l, of_parts, beats, |row: &[f32]| Some(find_first_extreme(smallest, row)));
}

/// Finds the first extreme; `find_in_row` may find it in contiguous elements.
fn find_first<T: bytemuck::Pod + Send + Sync>(
    l: &NativeLaunch,
    of_parts: bool,
    beats: impl Fn(T, T) -> bool + Sync,
    find_in_row: impl Fn(&[T]) -> Option<usize> + Sync,
) {
    let x = l.read::<T>(0);
    let from = of_parts.then(|| l.read::<i32>(1));
    let ArgmaxScalars { rows: all, begin } = l.scalars();
    let Rows { n, inner, rows, chunks, x_chunk, x_step: step, first, .. } = all;
    let value = Shared::new(l.write::<T>(1 + of_parts as usize));
    let y = Shared::new(l.write::<i32>(2 + of_parts as usize));
    each_row(rows * inner, 4096 / n, |id| {
        let (row, column) = (id / inner, id % inner);
        let base = all.x_at(row) + column;
        let at = |k: usize| x[base + k * step];
        let known = if step == 1 { find_in_row(&x[base..base + n]) } else { None };
        let k =
            known.unwrap_or_else(|| (1..n).fold(0, |best, k| if beats(at(k), at(best)) { k } else { best }));
        let index = match from {
            Some(from) => from[base + k * step],
            None => (begin + row % chunks * (x_chunk / step) + k) as i32,
        };
        let to = all.y_at(row) + column;
        // SAFETY: each column of a row belongs to one task.
        let (value, y) = unsafe { (&mut value.slice(to, 1)[0], &mut y.slice(to, 1)[0]) };
        if first || beats(at(k), *value) {
            (*value, *y) = (at(k), index);
        }
    });
}

pub fn place_at_index(l: &NativeLaunch) {
    let (index, d) = (l.read::<i32>(0), l.read::<f32>(1));
    let PlaceScalars { rows, n, inner, y_outer, y_step: step, begin } = l.scalars();
    let y = Shared::new(l.write::<f32>(2));
    each_row(rows * n, 16 * 1024 / inner, |id| {
        let (row, k) = (id / n, id % n);
        let from = row * step;
        // SAFETY: each (row, k) belongs to one task.
        let y = unsafe { y.slice(row * y_outer + k * step, inner) };
        for ((y, i), d) in y.iter_mut().zip(&index[from..]).zip(&d[from..]) {
            *y = if *i as usize == begin + k { *d } else { 0.0 };
        }
    });
}
