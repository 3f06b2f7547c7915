//! The CPU implementations: one row at a time, or up to 64 neighbouring columns.

use lowrank_cpu::simd::{dot, exp_or_zero, max, sum, sum_by, vectorised};
use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::Scalars;
use crate::kernel::native::NativeLaunch;

const WIDTH: usize = 64;

pub fn forward(l: &NativeLaunch) {
    let Scalars { n, inner, logarithm: log, .. } = l.scalars();
    let x = l.read::<f32>(0);
    if inner == 1 {
        let y = Shared::new(l.write::<f32>(1));
        return each_row(x.len() / n, GRAIN / n, |r| {
            // SAFETY: each row belongs to one task.
            softmax_row(&x[r * n..(r + 1) * n], unsafe { y.slice(r * n, n) }, log);
        });
    }
    let y = Shared::new(l.write::<f32>(1));
    for_each_block(l, |base, width| softmax_columns(&x[base..], &y, base, n, inner, width, log));
}

pub fn backward(l: &NativeLaunch) {
    let Scalars { n, inner, logarithm: log, .. } = l.scalars();
    let (y, d) = (l.read::<f32>(0), l.read::<f32>(1));
    if inner == 1 {
        let d_x = Shared::new(l.write::<f32>(2));
        return each_row(y.len() / n, GRAIN / n, |r| {
            let at = r * n..(r + 1) * n;
            // SAFETY: each row belongs to one task.
            softmax_row_backward(&y[at.clone()], &d[at], unsafe { d_x.slice(r * n, n) }, log);
        });
    }
    let d_x = Shared::new(l.write::<f32>(2));
    for_each_block(l, |base, width| {
        softmax_columns_backward(&y[base..], &d[base..], &d_x, base, n, inner, width, log)
    });
}

/// Calls `f` with the first element and the width of every block of columns.
fn for_each_block(l: &NativeLaunch, f: impl Fn(usize, usize) + Sync) {
    let Scalars { n, inner, rows, .. } = l.scalars();
    let per_row = inner.div_ceil(WIDTH);
    each_row(rows * per_row, GRAIN / (n * WIDTH.min(inner)), |task| {
        let from = task % per_row * WIDTH;
        f(task / per_row * n * inner + from, WIDTH.min(inner - from));
    });
}

vectorised! {
    fn softmax_row(x: &[f32], y: &mut [f32], log: bool) {
        let m = max::<S>(x);
        if log {
            let s = sum_by::<S>(x, |v| exp_or_zero::<S>(v - m)).ln();
            y.iter_mut().zip(x).for_each(|(y, v)| *y = v - m - s);
        } else {
            y.iter_mut().zip(x).for_each(|(y, v)| *y = exp_or_zero::<S>(v - m));
            let s = 1.0 / sum::<S>(y);
            y.iter_mut().for_each(|y| *y *= s);
        }
    }

    fn softmax_row_backward(y: &[f32], d: &[f32], d_x: &mut [f32], log: bool) {
        if log {
            let s = sum::<S>(d);
            d_x.iter_mut().zip(y).zip(d).for_each(|((d_x, y), d)| *d_x = S::fma(-exp_or_zero::<S>(*y), s, *d));
        } else {
            let s = dot::<S>(y, d);
            d_x.iter_mut().zip(y).zip(d).for_each(|((d_x, y), d)| *d_x = y * (d - s));
        }
    }

    fn softmax_columns(x: &[f32], y: &Shared<f32>, base: usize, n: usize, step: usize, width: usize, log: bool) {
        let (mut m, mut s) = ([f32::NEG_INFINITY; WIDTH], [0f32; WIDTH]);
        let (m, s) = (&mut m[..width], &mut s[..width]);
        for x in (0..n).map(|k| &x[k * step..][..width]) {
            m.iter_mut().zip(x).for_each(|(m, v)| *m = if *v > *m { *v } else { *m });
        }
        for x in (0..n).map(|k| &x[k * step..][..width]) {
            s.iter_mut().zip(&*m).zip(x).for_each(|((s, m), v)| *s += exp_or_zero::<S>(v - m));
        }
        if log {
            s.iter_mut().for_each(|s| *s = s.ln());
        } else {
            s.iter_mut().for_each(|s| *s = 1.0 / *s);
        }
        for k in 0..n {
            // SAFETY: only this block writes these columns.
            let y = unsafe { y.slice(base + k * step, width) };
            let x = &x[k * step..][..width];
            for (((y, v), m), s) in y.iter_mut().zip(x).zip(&*m).zip(&*s) {
                *y = if log { v - m - s } else { exp_or_zero::<S>(v - m) * s };
            }
        }
    }

    fn softmax_columns_backward(
        y: &[f32], d: &[f32], d_x: &Shared<f32>, base: usize, n: usize, step: usize, width: usize, log: bool
    ) {
        let mut s = [0f32; WIDTH];
        let s = &mut s[..width];
        for k in 0..n {
            let (y, d) = (&y[k * step..][..width], &d[k * step..][..width]);
            for ((s, y), d) in s.iter_mut().zip(y).zip(d) {
                *s = if log { *s + d } else { S::fma(*y, *d, *s) };
            }
        }
        for k in 0..n {
            // SAFETY: only this block writes these columns.
            let d_x = unsafe { d_x.slice(base + k * step, width) };
            let (y, d) = (&y[k * step..][..width], &d[k * step..][..width]);
            for (((d_x, y), d), s) in d_x.iter_mut().zip(y).zip(d).zip(&*s) {
                *d_x = if log { S::fma(-exp_or_zero::<S>(*y), *s, *d) } else { y * (d - s) };
            }
        }
    }
}
