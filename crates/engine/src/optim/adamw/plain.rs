//! The oracle: one element at a time in f64, in PyTorch's order.

use super::{Adam, AdamW};

/// Adam: AdamW without decay, with the gradient plus λp.
pub fn apply_reference_adam(o: &Adam, step: u64, p: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64]) {
    let g: Vec<f64> = g.iter().zip(&*p).map(|(g, p)| g + o.0.weight_decay * p).collect();
    apply_reference(&AdamW { weight_decay: 0.0, ..o.0 }, step, p, &g, m, v);
}

/// Update `step` (from 1) of p, m, v.
pub fn apply_reference(o: &AdamW, step: u64, p: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64]) {
    let correction = |beta: f64| 1.0 - beta.powi(step as i32);
    for i in 0..p.len() {
        p[i] *= 1.0 - o.lr * o.weight_decay;
        m[i] = o.betas[0] * m[i] + (1.0 - o.betas[0]) * g[i];
        v[i] = o.betas[1] * v[i] + (1.0 - o.betas[1]) * g[i] * g[i];
        let denominator = v[i].sqrt() / correction(o.betas[1]).sqrt() + o.eps;
        p[i] -= o.lr / correction(o.betas[0]) * m[i] / denominator;
    }
}
