//! The oracle: loops in f64.

use crate::ops::checks::Array;

pub fn norm(gradients: &[Array]) -> f64 {
    let all = || gradients.iter().flat_map(|g| &g.data);
    if all().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    all().map(|v| v * v).sum::<f64>().sqrt()
}

pub fn factor(norm: f64, max: f64) -> f64 {
    if norm.is_nan() {
        return norm;
    }
    (max / (norm + 1e-6)).min(1.0)
}
