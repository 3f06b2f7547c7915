//! The oracle: one element at a time in f64.

use super::Lion;

/// An update of p and m.
pub fn apply_reference(o: &Lion, p: &mut [f64], g: &[f64], m: &mut [f64]) {
    for i in 0..p.len() {
        let c = o.betas[0] * m[i] + (1.0 - o.betas[0]) * g[i];
        let sign = if c == 0.0 { 0.0 } else { c.signum() };
        p[i] = p[i] * (1.0 - o.lr * o.weight_decay) - o.lr * sign;
        m[i] = o.betas[1] * m[i] + (1.0 - o.betas[1]) * g[i];
    }
}
