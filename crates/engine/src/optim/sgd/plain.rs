//! The oracle: one element at a time in f64, in PyTorch's order.

use super::Sgd;

/// Update `step` (from 1) of p and its momentum buffer.
pub fn apply_reference(o: &Sgd, step: u64, p: &mut [f64], g: &[f64], buffer: &mut [f64]) {
    for i in 0..p.len() {
        let mut d = g[i] + o.weight_decay * p[i];
        if o.momentum != 0.0 {
            buffer[i] = if step == 1 { d } else { o.momentum * buffer[i] + (1.0 - o.dampening) * d };
            d = if o.nesterov { d + o.momentum * buffer[i] } else { buffer[i] };
        }
        p[i] -= o.lr * d;
    }
}
