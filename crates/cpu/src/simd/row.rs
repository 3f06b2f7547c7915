//! Reductions of a row, in a fixed order: 32 lanes, folded in halves.

use super::{Fma, exp_or_zero};

const LANES: usize = 32;

/// Σ f(x) with `f` inlined; f32 lanes, so within n/32 roundings.
#[inline(always)]
pub fn sum_by<S: Fma>(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let mut tail = 0.0;
    for v in chunks.remainder() {
        tail += f(*v);
    }
    for c in chunks {
        for (s, v) in lanes.iter_mut().zip(c) {
            *s += f(*v);
        }
    }
    fold(lanes, |a, b| a + b) + tail
}

/// Σ x.
#[inline(always)]
pub fn sum<S: Fma>(x: &[f32]) -> f32 {
    sum_by::<S>(x, |v| v)
}

/// Σ a · b.
#[inline(always)]
pub fn dot<S: Fma>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (ca, cb) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let mut tail = 0.0;
    for (a, b) in ca.remainder().iter().zip(cb.remainder()) {
        tail = S::fma(*a, *b, tail);
    }
    for (a, b) in ca.zip(cb) {
        for ((s, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *s = S::fma(*a, *b, *s);
        }
    }
    fold(lanes, |a, b| a + b) + tail
}

/// The maximum, ignoring NaN; −∞ if there is no other element.
#[inline(always)]
pub fn max<S: Fma>(x: &[f32]) -> f32 {
    reduce_extreme(x, f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// The minimum, ignoring NaN; ∞ if there is no other element.
#[inline(always)]
pub fn min<S: Fma>(x: &[f32]) -> f32 {
    reduce_extreme(x, f32::INFINITY, |a, b| if b < a { b } else { a })
}

#[inline(always)]
fn reduce_extreme(x: &[f32], start: f32, further: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder().iter().fold(start, |a, b| further(a, *b));
    for c in chunks {
        for (m, v) in lanes.iter_mut().zip(c) {
            *m = further(*m, *v);
        }
    }
    further(fold(lanes, &further), tail)
}

/// Elements of a log-sum-exp that are read twice; they fit L1.
const BLOCK: usize = 4096;

/// Σ eˣ as (m, s): e^m · s, with m the maximum. s is NaN where an x is NaN or +∞, or all are −∞.
#[inline(always)]
pub fn log_sum<S: Fma>(x: &[f32]) -> (f32, f32) {
    let (mut m, mut s) = (f32::NEG_INFINITY, 0f32);
    for block in x.chunks(BLOCK) {
        let largest = max::<S>(block);
        if largest > m {
            s *= exp_or_zero::<S>(m - largest);
            m = largest;
        }
        s += if m > f32::NEG_INFINITY {
            sum_by::<S>(block, |v| exp_or_zero::<S>(v - m))
        } else {
            // Only −∞ and NaN so far.
            sum_by::<S>(block, |v| if v.is_nan() { v } else { 0.0 })
        };
    }
    (m, if m > f32::NEG_INFINITY { s } else { f32::NAN })
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}
