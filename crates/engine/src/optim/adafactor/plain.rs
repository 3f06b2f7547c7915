//! The oracle: one parameter at a time in f64, in PyTorch's order.

use super::Adafactor;

/// Update `step` (from 1) of p [batch, rows, columns] by its row and column moments, or, where `states` has one, of a
/// vector by its variance.
pub fn apply_reference(
    o: &Adafactor,
    step: u64,
    [batch, rows, columns]: [usize; 3],
    p: &mut [f64],
    g: &[f64],
    states: &mut [Vec<f64>],
) {
    let rms = |x: &[f64]| (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64).sqrt();
    let rate = (step as f64).powf(o.beta2_decay);
    let alpha = rms(p).max(o.eps[1]) * o.lr.min(1.0 / (step as f64).sqrt());
    p.iter_mut().for_each(|v| *v *= 1.0 - o.lr * o.weight_decay);
    let second: Vec<f64> = match states {
        [variance] => {
            variance.iter_mut().zip(g).for_each(|(v, g)| *v += rate * (g * g - *v));
            variance.clone()
        }
        [row, col] => {
            let square = |b: usize, r: usize, c: usize| g[(b * rows + r) * columns + c].powi(2);
            for (i, v) in row.iter_mut().enumerate() {
                let mean = (0..columns).map(|c| square(i / rows, i % rows, c)).sum::<f64>() / columns as f64;
                *v += rate * (mean - *v);
            }
            for (i, v) in col.iter_mut().enumerate() {
                let mean = (0..rows).map(|r| square(i / columns, r, i % columns)).sum::<f64>() / rows as f64;
                *v += rate * (mean - *v);
            }
            let scale =
                |b: usize| (row[b * rows..(b + 1) * rows].iter().sum::<f64>() / rows as f64).max(o.eps[0]);
            (0..batch * rows * columns)
                .map(|i| {
                    let (b, c) = (i / (rows * columns), i % columns);
                    row[i / columns] * col[b * columns + c] / scale(b)
                })
                .collect()
        }
        _ => unreachable!("one state or two"),
    };
    let u: Vec<f64> = g.iter().zip(&second).map(|(g, v)| g / v.max(o.eps[0] * o.eps[0]).sqrt()).collect();
    let denominator = (rms(&u) / o.d).max(1.0);
    p.iter_mut().zip(&u).for_each(|(p, u)| *p -= alpha / denominator * u);
}
