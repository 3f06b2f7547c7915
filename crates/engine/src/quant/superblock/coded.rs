//! Superblocks of codes of 4, 5 and 6 bits, multiplied as they lie.

use super::super::coded::{Coded, OF_BYTES, OF_NIBBLES, add_bytes, add_nibbles, sums_of};
use super::{Lines, PART, Q4K, Q5K, Q6K};
use crate::simd::{Isa, Lanes, Words};

/// The scales and the minima of `Q4K` and `Q5K`, as numbers: those of even runs, then those of odd ones, and the
/// minima's signs turned.
#[inline(always)]
unsafe fn scales_and_minima<S: Isa>(lines: &Lines) -> [[f32; 8]; 2] {
    let Lines { d, e, scales: packed } = *lines;
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let [a, b, c] = [word(0), word(4), word(8)];
    let last = |low: u32, high: u32| low & 0x0f0f_0f0f | (high >> 6 & 0x0303_0303) << 4;
    let numbers = |first: u32, last: u32, by: f32| {
        let ([p, q, r, s], [t, u, v, w]) = (first.to_le_bytes(), last.to_le_bytes());
        [p, r, t, v, q, s, u, w].map(|n| n as f32 * by)
    };
    // SAFETY: the caller's.
    let [d, e] = unsafe { [S::V::widen(u16::from_le_bytes(d)), S::V::widen(u16::from_le_bytes(e))] };
    [numbers(a & 0x3f3f_3f3f, last(c, a), d), numbers(b & 0x3f3f_3f3f, last(c >> 4, b), -e)]
}

/// The element of a field whose word's bytes hold those of one run low and of the next high.
#[inline(always)]
fn of_two_runs(lanes: usize, step: usize, lane: usize, byte: usize, high: usize) -> usize {
    let at = 4 * (step * lanes + lane) + byte;
    at / PART * 2 * PART + high * PART + at % PART
}

/// Adds the products of two runs' sums by their scales and minima.
#[inline(always)]
unsafe fn settle<S: Isa>(
    step: usize,
    [scales, minima]: &[[f32; 8]; 2],
    [even, odd]: [S::V; 2],
    x: *const f32,
    sums: &mut [S::V; 2],
) {
    let pair = step * S::WIDTH / 8;
    // SAFETY: the caller's.
    unsafe {
        let of = |values: &[f32; 8], odd: usize| S::Words::spread::<8>(values.as_ptr().add(4 * odd + pair));
        sums[0] = of(scales, 0).fma(even, of(scales, 1).fma(odd, sums[0]));
        let minima = [of(minima, 0), of(minima, 1)];
        sums[1] = minima[0].fma(sums_of::<S>(x, 0), minima[1].fma(sums_of::<S>(x, 1), sums[1]));
    }
}

impl Coded for Q4K {
    const SUMS: usize = 2;
    const OF_FIELDS: [f32; 8] = OF_NIBBLES;

    #[inline(always)]
    fn element(lanes: usize, step: usize, lane: usize, field: usize) -> usize {
        of_two_runs(lanes, step, lane, field / 2, field % 2)
    }

    #[inline(always)]
    fn sum_of(field: usize) -> usize {
        field % 2
    }

    #[inline(always)]
    unsafe fn turn<S: Isa, const BLOCKS: usize>(blocks: *const u8, x: *const f32, sums: &mut [S::V; 2]) {
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks.cast::<Q4K>();
            let scales = scales_and_minima::<S>(&block.lines);
            for step in 0..256 / (8 * S::WIDTH) {
                let x = x.add(step * 10 * S::WIDTH);
                let words = S::Words::load(block.codes.as_ptr().add(4 * step * S::WIDTH));
                let products = add_nibbles::<S>(words, x, [S::zero(); 2]);
                settle::<S>(step, &scales, products, x, sums);
            }
        }
    }
}

impl Coded for Q5K {
    const SUMS: usize = 2;
    const OF_FIELDS: [f32; 8] = OF_BYTES;

    #[inline(always)]
    fn element(lanes: usize, step: usize, lane: usize, field: usize) -> usize {
        of_two_runs(lanes, step, lane, field % 4, field / 4)
    }

    #[inline(always)]
    fn sum_of(field: usize) -> usize {
        field / 4
    }

    #[inline(always)]
    unsafe fn turn<S: Isa, const BLOCKS: usize>(blocks: *const u8, x: *const f32, sums: &mut [S::V; 2]) {
        /// Of each run of even number, the bit of its elements' fifth.
        const BITS: [u32; 32] = {
            let mut bits = [0; 32];
            let mut i = 0;
            while i < 32 {
                bits[i] = i as u32 / 8 * 2;
                i += 1;
            }
            bits
        };
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks.cast::<Q5K>();
            let scales = scales_and_minima::<S>(&block.lines);
            for step in 0..256 / (8 * S::WIDTH) {
                let (x, from) = (x.add(step * 10 * S::WIDTH), step * S::WIDTH);
                let words = S::Words::load(block.codes.as_ptr().add(4 * from));
                let bits = S::Words::load(BITS.as_ptr().add(from).cast());
                let high = S::Words::load_eight(block.high.as_ptr(), from).shr_each(bits);
                let of = |codes: S::Words, fifth: S::Words| codes.and(0x0f0f_0f0f).or(fifth.and(0x1010_1010));
                let even = add_bytes::<S>(of(words, high.shl::<4>()), x, S::zero());
                let odd =
                    add_bytes::<S>(of(words.shr::<4>(), high.shl::<3>()), x.add(4 * S::WIDTH), S::zero());
                settle::<S>(step, &scales, [even, odd], x, sums);
            }
        }
    }
}

impl Coded for Q6K {
    const SUMS: usize = 2;
    const OF_SUMS: f32 = -32.0;
    const OF_FIELDS: [f32; 8] = OF_BYTES;

    /// Of 128 elements, 64 bytes hold the low nibbles of the first 64, above them those of the others.
    #[inline(always)]
    fn element(lanes: usize, step: usize, lane: usize, field: usize) -> usize {
        let byte = 4 * (step * lanes + lane) + field % 4;
        byte / 64 * 128 + field / 4 * 64 + byte % 64
    }

    #[inline(always)]
    fn sum_of(field: usize) -> usize {
        field / 4
    }

    #[inline(always)]
    unsafe fn turn<S: Isa, const BLOCKS: usize>(blocks: *const u8, x: *const f32, sums: &mut [S::V; 2]) {
        /// Of 32 bytes of bits, those of the first 32 elements stand two below those of the next.
        const BITS: [u32; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2];
        // SAFETY: the caller's.
        unsafe {
            let block = &*blocks.cast::<Q6K>();
            let d = S::V::widen(u16::from_le_bytes(block.d));
            let scales = block.scales.map(|scale| scale as f32 * d);
            for step in 0..256 / (8 * S::WIDTH) {
                let (x, from) = (x.add(step * 10 * S::WIDTH), step * S::WIDTH);
                let words = S::Words::load(block.codes.as_ptr().add(4 * from));
                let bits = S::Words::load(BITS.as_ptr().add(from % 16).cast());
                let high = S::Words::load_eight(block.high.as_ptr().add(from / 16 * 32), from);
                let of = |codes: S::Words, high: S::Words| codes.and(0x0f0f_0f0f).or(high.and(0x3030_3030));
                // Both bits of the upper half stand where they are wanted, those of the lower four below.
                let lower = high.shr_each(bits);
                let low = add_bytes::<S>(of(words, lower.shl::<4>()), x, sums_of::<S>(x, 0));
                let high =
                    add_bytes::<S>(of(words.shr::<4>(), lower), x.add(4 * S::WIDTH), sums_of::<S>(x, 1));
                // Four runs of 16 have the low nibbles of 64 bytes, and the next four the high ones.
                let run = from / 16 * 8 + from % 16 / 4;
                let of = |run: usize| S::Words::spread::<4>(scales.as_ptr().add(run));
                sums[0] = of(run).fma(low, sums[0]);
                sums[1] = of(run + 4).fma(high, sums[1]);
            }
        }
    }
}
