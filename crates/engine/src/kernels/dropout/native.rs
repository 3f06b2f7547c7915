//! The CPU implementation: 64 elements at a time, compiled for each instruction set.

use lowrank_cpu::random::philox_lanes;
use lowrank_cpu::simd::vectorised;
use lowrank_cpu::tasks::{GRAIN, each_chunk};

use super::Scalars;
use crate::kernel::native::NativeLaunch;

/// Counters that are computed in parallel.
const LANES: usize = 16;

pub fn dropout(l: &NativeLaunch) {
    let mask: Scalars = l.scalars();
    let (x, y) = (l.read::<f32>(0), l.write::<f32>(1));
    let accumulate = l.params[0] == 1;
    each_chunk(y, GRAIN, |at, y| {
        drop_chunk(mask, mask.block + (at / 4) as u32, &x[at..at + y.len()], y, accumulate);
    });
}

vectorised! {
    /// Processes the elements from counter `block` on. All instruction sets give the same bits.
    fn drop_chunk(mask: Scalars, block: u32, x: &[f32], y: &mut [f32], accumulate: bool) {
        let chunks = y.chunks_mut(4 * LANES).zip(x.chunks(4 * LANES));
        for (k, (y, x)) in chunks.enumerate() {
            let first = block + (k * LANES) as u32;
            let mut counters = [[0; LANES], [0; LANES], [mask.offset[0]; LANES], [mask.offset[1]; LANES]];
            for (lane, counter) in counters[0].iter_mut().enumerate() {
                *counter = first + lane as u32;
            }
            let random = philox_lanes::<LANES>(counters, mask.seed);
            let mut factors = [0f32; 4 * LANES];
            for lane in 0..LANES {
                for w in 0..4 {
                    factors[4 * lane + w] = if random[w][lane] >= mask.threshold { mask.scale } else { 0.0 };
                }
            }
            // A dropped element that is not finite is NaN, like its product with 0.
            if accumulate {
                y.iter_mut().zip(x).zip(&factors).for_each(|((y, x), f)| *y += x * f);
            } else {
                y.iter_mut().zip(x).zip(&factors).for_each(|((y, x), f)| *y = x * f);
            }
        }
    }
}
