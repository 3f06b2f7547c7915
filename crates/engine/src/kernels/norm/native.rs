//! The CPU implementations: one row, or one chunk of rows, at a time.

use std::borrow::Cow;

use lowrank_cpu::simd::{dot, sum, sum_by, vectorised};
use lowrank_cpu::tasks::{GRAIN, Shared, each_chunk, each_range, each_row};

use super::{Backward, Chunks, Forward};
use crate::kernel::native::NativeLaunch;

fn read_optional<'a>(l: &'a NativeLaunch, present: bool, binding: usize) -> Option<Cow<'a, [f32]>> {
    present.then(|| l.read_f32(binding))
}

pub fn forward(l: &NativeLaunch) {
    let Forward { n, eps, centred, weighted, biased, added } = l.scalars();
    let (weight, bias) = (read_optional(l, weighted, 1), read_optional(l, biased, 2));
    let weights = (weight.as_deref(), bias.as_deref());
    let x = l.read::<f32>(0);
    let (y, scale) = (Shared::new(l.write::<f32>(3)), Shared::new(l.write::<f32>(4)));
    let mean = centred.then(|| Shared::new(l.write::<f32>(5)));
    let last = 5 + centred as usize;
    let residual = added.then(|| (l.read::<f32>(last), Shared::new(l.write::<f32>(last + 1))));
    each_row(x.len() / n, GRAIN / n, |r| {
        let at = r * n..(r + 1) * n;
        let mut x = &x[at.clone()];
        if let Some((added, sum)) = &residual {
            // SAFETY: each row belongs to one task.
            let sum = unsafe { sum.slice(r * n, n) };
            sum.iter_mut().zip(x).zip(&added[at]).for_each(|((s, x), a)| *s = x + a);
            x = sum;
        }
        // SAFETY: each row belongs to one task.
        let (y, scale) = unsafe { (y.slice(r * n, n), scale.slice(r, 1)) };
        let (own_scale, own_mean) = normalise_row(x, weights, eps, centred, y);
        scale[0] = own_scale;
        if let Some(mean) = &mean {
            // SAFETY: each row belongs to one task.
            let mean = unsafe { mean.slice(r, 1) };
            mean[0] = own_mean;
        }
    });
}

pub fn backward(l: &NativeLaunch) {
    let Backward { n, centred, weighted, adds } = l.scalars();
    let (x, scale, mean, d) = (l.read::<f32>(0), l.read::<f32>(2), l.read::<f32>(3), l.read::<f32>(4));
    let weight = read_optional(l, weighted, 1);
    let d_x = Shared::new(l.write::<f32>(5));
    each_range(x.len() / n, GRAIN / n, |rows| {
        // A temporary row if d_x is added to.
        let mut own = vec![0.0; if adds { n } else { 0 }];
        for r in rows {
            let at = r * n..(r + 1) * n;
            let mean = centred.then(|| mean[r]);
            // SAFETY: each row belongs to one task.
            let d_x = unsafe { d_x.slice(r * n, n) };
            let to = if adds { &mut own[..] } else { &mut *d_x };
            normalise_row_backward(&x[at.clone()], weight.as_deref(), scale[r], mean, &d[at], to);
            if adds {
                d_x.iter_mut().zip(&own).for_each(|(sum, d)| *sum += *d);
            }
        }
    });
}

pub fn sum_rows(l: &NativeLaunch) {
    let Chunks { n, rows, chunk, centred, weighted } = l.scalars();
    let (x, scale, mean, d) = (l.read::<f32>(0), l.read::<f32>(1), l.read::<f32>(2), l.read::<f32>(3));
    each_chunk(l.write::<f32>(4), n, |at, y| {
        let c = at / n;
        y.fill(0.0);
        for r in c * chunk..((c + 1) * chunk).min(rows) {
            let at = r * n..(r + 1) * n;
            let x = weighted.then(|| (&x[at.clone()], scale[r], if centred { mean[r] } else { 0.0 }));
            add_row(x, &d[at], y);
        }
    });
}

vectorised! {
    /// Returns the scale and the mean.
    fn normalise_row(x: &[f32], weights: (Option<&[f32]>, Option<&[f32]>), eps: f32, centred: bool, y: &mut [f32]) -> (f32, f32) {
        let n = x.len() as f32;
        let mean = if centred { sum::<S>(x) / n } else { 0.0 };
        let squares = sum_by::<S>(x, |v| (v - mean) * (v - mean)) / n;
        // Corrects mean and variance for the rounding error of the mean.
        let mean_error = if centred { sum_by::<S>(x, |v| v - mean) / n } else { 0.0 };
        let mean = mean + mean_error;
        let scale = 1.0 / (squares - mean_error * mean_error + eps).sqrt();
        match weights {
            (Some(w), None) => {
                y.iter_mut().zip(x).zip(w).for_each(|((y, x), w)| *y = (x - mean) * scale * w);
            }
            (Some(w), Some(b)) => {
                let each = y.iter_mut().zip(x).zip(w).zip(b);
                each.for_each(|(((y, x), w), b)| *y = S::fma((x - mean) * scale, *w, *b));
            }
            (None, bias) => {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean) * scale);
                if let Some(b) = bias {
                    y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
                }
            }
        }
        (scale, mean)
    }

    fn normalise_row_backward(x: &[f32], weight: Option<&[f32]>, scale: f32, mean: Option<f32>, d: &[f32], d_x: &mut [f32]) {
        let n = x.len() as f32;
        // g = w d first, into d_x.
        match weight {
            Some(w) => d_x.iter_mut().zip(d).zip(w).for_each(|((g, d), w)| *g = d * w),
            None => d_x.copy_from_slice(d),
        }
        let sum_of_g = if mean.is_some() { sum::<S>(d_x) } else { 0.0 };
        let mean = mean.unwrap_or(0.0);
        // mean(g x̂) = ρ (Σ g x − μ Σ g) / n; the centred form sums centred values for accuracy.
        let along = if mean == 0.0 { dot::<S>(d_x, x) } else { centred_dot::<S>(d_x, x, mean) } * scale / n;
        let (shift, slope) = (sum_of_g / n, along * scale);
        d_x.iter_mut().zip(x).for_each(|(g, x)| *g = scale * S::fma(mean - x, slope, *g - shift));
    }

    fn add_row(x: Option<(&[f32], f32, f32)>, d: &[f32], y: &mut [f32]) {
        match x {
            Some((x, scale, mean)) => {
                y.iter_mut().zip(d).zip(x).for_each(|((y, d), x)| *y = S::fma(*d, (x - mean) * scale, *y));
            }
            None => y.iter_mut().zip(d).for_each(|(y, d)| *y += d),
        }
    }
}

/// Σ a (b − mean).
#[inline(always)]
fn centred_dot<S: lowrank_cpu::simd::Fma>(a: &[f32], b: &[f32], mean: f32) -> f32 {
    let mut total = 0.0;
    let mut block = [0f32; 256];
    for (a, b) in a.chunks(256).zip(b.chunks(256)) {
        let block = &mut block[..b.len()];
        block.iter_mut().zip(b).for_each(|(c, b)| *c = b - mean);
        total += dot::<S>(a, block);
    }
    total
}
