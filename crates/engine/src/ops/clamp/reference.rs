//! The reference: one element at a time.

use super::Clamp;
use crate::ops::checks::Array;

pub fn compute_reference(clamp: Clamp, x: &Array) -> Array {
    x.map(|v| if v.is_nan() { v } else { v.max(clamp.low).min(clamp.high) })
}
