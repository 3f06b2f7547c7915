//! The CPU implementations, one row at a time. Forward reads a row once, in blocks that fit L1.

use lowrank_cpu::simd::{exp_or_zero, log_sum, max, sum, vectorised};
use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use super::{LossScalars, Row, ScaledRow, StridedRow};
use crate::kernel::native::NativeLaunch;

pub fn compute_row_losses(l: &NativeLaunch) {
    let Row { n, ignore, smoothing } = l.scalars();
    let (x, targets) = (l.read::<f32>(0), l.read::<i32>(1));
    let (loss, log_sum) = (Shared::new(l.write::<f32>(2)), Shared::new(l.write::<f32>(3)));
    each_row(x.len() / n, GRAIN / n, |r| {
        // SAFETY: each row belongs to one task.
        let (loss, s) = unsafe { (&mut loss.slice(r, 1)[0], &mut log_sum.slice(r, 1)[0]) };
        (*loss, *s) = match classify_target(targets[r], ignore, n) {
            Target::Ignored => (0.0, 0.0),
            Target::None => (f32::NAN, f32::NAN),
            Target::Column(t) => compute_row(&x[r * n..(r + 1) * n], t, smoothing),
        };
    });
}

pub fn compute_row_losses_in_place(l: &NativeLaunch) {
    let StridedRow { row: Row { n, ignore, smoothing }, stride } = l.scalars();
    let targets = l.read::<i32>(1);
    let (x, loss) = (Shared::new(l.write::<f32>(0)), Shared::new(l.write::<f32>(2)));
    each_row(targets.len(), GRAIN / n, |r| {
        // SAFETY: rows have `n` elements and a stride of `stride`, and each belongs to one task.
        let (x, loss) = unsafe { (x.slice(r * stride, n), &mut loss.slice(r, 1)[0]) };
        match classify_target(targets[r], ignore, n) {
            Target::Ignored => {
                x.fill(0.0);
                *loss = 0.0;
            }
            Target::None => {
                x.fill(f32::NAN);
                *loss = f32::NAN;
            }
            Target::Column(t) => {
                *loss = compute_row_in_place(x, t, smoothing);
                x[t] -= 1.0 - smoothing;
            }
        }
    });
}

enum Target {
    Ignored,
    /// The target is not a column.
    None,
    Column(usize),
}

fn classify_target(t: i32, ignore: i32, n: usize) -> Target {
    match usize::try_from(t) {
        _ if t == ignore => Target::Ignored,
        Ok(t) if t < n => Target::Column(t),
        _ => Target::None,
    }
}

pub fn sum_losses(l: &NativeLaunch) {
    let LossScalars { ignore, first, last, mean, .. } = l.scalars();
    let (losses, targets) = (l.read::<f32>(0), l.read::<i32>(1));
    let (y, count) = (&mut l.write::<f32>(2)[0], &mut l.write::<f32>(3)[0]);
    let trained = targets.iter().filter(|t| **t != ignore).count() as f32;
    let total: f64 = losses.iter().map(|v| *v as f64).sum();
    *count = if first { trained } else { *count + trained };
    let total = if first { total as f32 } else { *y + total as f32 };
    *y = if mean && last { total / *count } else { total };
}

pub fn backward(l: &NativeLaunch) {
    let ScaledRow { row: Row { n, ignore, smoothing }, scaling } = l.scalars();
    let (x, targets, log_sum) = (l.read::<f32>(0), l.read::<i32>(1), l.read::<f32>(2));
    let (d, count) = (l.read::<f32>(3), l.read::<f32>(4));
    let d_x = Shared::new(l.write::<f32>(5));
    each_row(x.len() / n, GRAIN / n, |r| {
        // SAFETY: each row belongs to one task.
        let d_x = unsafe { d_x.slice(r * n, n) };
        let scale = match scaling {
            0 => d[r],
            1 => d[0],
            _ => d[0] / count[0],
        };
        match classify_target(targets[r], ignore, n) {
            Target::Ignored => d_x.fill(0.0),
            Target::None => d_x.fill(f32::NAN),
            Target::Column(t) => {
                compute_row_backward(&x[r * n..(r + 1) * n], log_sum[r], smoothing / n as f32, scale, d_x);
                d_x[t] -= (1.0 - smoothing) * scale;
            }
        }
    });
}

/// Returns the loss of a row from its log-sum-exp s, its target's logit x and its mean `mean`.
#[inline(always)]
fn loss(s: f32, x: f32, smoothing: f32, mean: impl Fn() -> f32) -> f32 {
    // An infinite loss stays infinite with smoothing.
    if smoothing == 0.0 || x == f32::NEG_INFINITY { s - x } else { (s - x) + smoothing * (x - mean()) }
}

vectorised! {
    /// Returns the loss and the log-sum-exp.
    fn compute_row(x: &[f32], t: usize, smoothing: f32) -> (f32, f32) {
        let (m, s) = log_sum::<S>(x);
        let s = m + s.ln();
        (loss(s, x[t], smoothing, || sum::<S>(x) / x.len() as f32), s)
    }

    /// Returns the loss and leaves softmax(x) − e/V in x.
    fn compute_row_in_place(x: &mut [f32], t: usize, smoothing: f32) -> f32 {
        let n = x.len() as f32;
        let (m, own) = (max::<S>(x), x[t]);
        let mean = if smoothing > 0.0 { sum::<S>(x) / n } else { 0.0 };
        x.iter_mut().for_each(|v| *v = exp_or_zero::<S>(*v - m));
        let s = sum::<S>(x);
        let (scale, share) = (1.0 / s, smoothing / n);
        x.iter_mut().for_each(|v| *v = S::fma(*v, scale, -share));
        loss(m + s.ln(), own, smoothing, || mean)
    }

    fn compute_row_backward(x: &[f32], s: f32, even: f32, scale: f32, d_x: &mut [f32]) {
        d_x.iter_mut().zip(x).for_each(|(d, v)| *d = (exp_or_zero::<S>(v - s) - even) * scale);
    }
}
