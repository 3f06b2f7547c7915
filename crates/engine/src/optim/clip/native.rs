//! The CPU implementations.

use lowrank_cpu::tasks::{GRAIN, each_chunk};

use super::{CHUNK, Clip, Counted, VerdictScalars};
use crate::kernel::native::NativeLaunch;

/// Fewest chunks per task.
const MIN_CHUNKS: usize = 32;

pub fn norm(l: &NativeLaunch) {
    let x = l.read::<f32>(0);
    let (squares, root) = (l.params[0] == 1, l.params[1] == 1);
    let sum = |chunk: &[f32]| if squares { sum_lanes(chunk, |v| v * v) } else { sum_lanes(chunk, |v| v) };
    let y = l.write::<f32>(1);
    each_chunk(y, MIN_CHUNKS, |at, y| {
        for (y, chunk) in y.iter_mut().zip(x[at * CHUNK..].chunks(CHUNK)) {
            let sum = sum(chunk);
            *y = if root { sum.sqrt() } else { sum } as f32;
        }
    });
}

/// A sum in eight lanes of f64.
fn sum_lanes(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0f64; 8];
    let chunks = x.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().map(|v| f(*v as f64)).sum();
    for c in chunks {
        for (s, v) in sums.iter_mut().zip(c) {
            *s += f(*v as f64);
        }
    }
    sums.iter().sum::<f64>() + tail
}

pub fn verdict(l: &NativeLaunch) {
    let norm = l.read::<f32>(0)[0];
    let [factor, stop, late, latch] = l.write::<f32>(1) else { unreachable!("four values") };
    let VerdictScalars { clips, max, latches } = l.scalars();
    *stop = 1.0;
    if *latch > 0.0 || (!norm.is_finite() && latches) {
        *latch += 1.0;
    } else if !norm.is_finite() {
        *late += 1.0;
    } else {
        *stop = 0.0;
        *factor = if clips { self::factor(norm, max) } else { 1.0 };
    }
}

pub fn count_skipped(l: &NativeLaunch) {
    let late = &mut l.write::<f32>(0)[2];
    let Counted { steps } = l.scalars();
    *late = (*late - steps).max(0.0);
}

pub fn clip(l: &NativeLaunch) {
    let norm = l.read::<f32>(0)[0];
    let Clip { max, .. } = l.scalars();
    let factor = if norm.is_nan() { norm } else { factor(norm, max) };
    each_chunk(l.write::<f32>(1), GRAIN, |_, grad| grad.iter_mut().for_each(|g| *g *= factor));
}

fn factor(norm: f32, max: f32) -> f32 {
    (max / (norm + 1e-6)).min(1.0)
}
