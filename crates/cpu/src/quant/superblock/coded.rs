//! Superblocks of codes of 4, 5 and 6 bits, multiplied without unpacking.

use super::super::coded::{Coded, OF_BYTES, OF_NIBBLES, Row, count_chunk_step_floats, count_step_floats};
use super::{PART, Q4K, Q5K, Q6K, RunScales};
use crate::simd::{Isa, Lanes, Words};

/// Sums per superblock: one for each run of 16; or, after as many zeros, one for each run of 32.
const SUMS: usize = 16;

/// The scales of the runs of `Q4K` and `Q5K` as numbers, followed by the negated minima.
#[inline(always)]
unsafe fn decode_scales<S: Isa>(packed: &RunScales) -> [f32; SUMS] {
    let RunScales { d, e, scales: packed } = *packed;
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let [a, b, c] = [word(0), word(4), word(8)];
    let last = |low: u32, high: u32| low & 0x0f0f_0f0f | (high >> 6 & 0x0303_0303) << 4;
    let all = [a & 0x3f3f_3f3f, last(c, a), b & 0x3f3f_3f3f, last(c >> 4, b)].map(u32::to_le);
    let mut values = [0.0; SUMS];
    for i in (0..SUMS).step_by(S::WIDTH) {
        // SAFETY: guaranteed by the caller; 16 bytes are read and 16 values written.
        unsafe {
            let of = [S::V::widen(u16::from_le_bytes(d)), -S::V::widen(u16::from_le_bytes(e))];
            let of = S::Words::spread::<8, 1>(of.as_ptr().add(i / 8));
            S::V::load_i8(all.as_ptr().cast::<i8>().add(i)).mul(of).store(values.as_mut_ptr().add(i));
        }
    }
    values
}

/// The index of the sum of `Q4K` and `Q5K` that an element belongs to.
#[inline(always)]
fn find_run_sum(at: usize) -> usize {
    SUMS / 2 + at / PART
}

/// Adds the products of a superblock's sums by `values`, from `first` on.
#[inline(always)]
unsafe fn add_sums<S: Isa>(first: usize, values: &[f32; SUMS], sums: *const f32, sum: &mut S::V) {
    for i in (first / S::WIDTH * S::WIDTH..SUMS).step_by(S::WIDTH) {
        // SAFETY: guaranteed by the caller.
        unsafe { *sum = S::V::load(values.as_ptr().add(i)).fma(S::V::load(sums.add(i)), *sum) };
    }
}

/// `Coded::first_element` for words whose bytes hold the codes of one run (low) and of the next (high).
#[inline(always)]
fn first_of_two_runs(lanes: usize, step: usize, lane: usize, half: usize) -> usize {
    let at = 4 * (step * lanes + lane);
    at / PART * 2 * PART + half * PART + at % PART
}

/// Adds the products of two runs' sums by their scales.
#[inline(always)]
unsafe fn add_runs<S: Isa>(step: usize, scales: &[f32; SUMS], [even, odd]: [S::V; 2], sum: &mut S::V) {
    let run = step * S::WIDTH / 8 * 2;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let of = |odd: usize| S::Words::spread::<8, 2>(scales.as_ptr().add(run + odd));
        *sum = of(0).fma(even, of(1).fma(odd, *sum));
    }
}

impl Coded for Q4K {
    const SUMS: usize = SUMS;
    const OF_FIELDS: [[f32; 4]; 2] = OF_NIBBLES;

    #[inline(always)]
    fn first_element(lanes: usize, step: usize, lane: usize, half: usize) -> usize {
        first_of_two_runs(lanes, step, lane, half)
    }

    #[inline(always)]
    fn sum_index(at: usize) -> usize {
        find_run_sum(at)
    }

    #[inline(always)]
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let block = &*blocks.cast::<Q4K>();
            let scales = decode_scales::<S>(&block.scales);
            for step in 0..256 / (8 * S::WIDTH) {
                let x = x.add(step * const { count_step_floats::<S, R>() });
                let words = S::Words::load(block.codes.as_ptr().add(4 * step * S::WIDTH));
                add_runs::<S>(step, &scales, R::multiply_nibbles_separately(words, x), &mut sums[0]);
            }
            add_sums::<S>(8, &scales, x.add(const { count_chunk_step_floats::<S, R, Self>() }), &mut sums[1]);
        }
    }
}

impl Coded for Q5K {
    const SUMS: usize = SUMS;
    const OF_FIELDS: [[f32; 4]; 2] = OF_BYTES;

    #[inline(always)]
    fn first_element(lanes: usize, step: usize, lane: usize, half: usize) -> usize {
        first_of_two_runs(lanes, step, lane, half)
    }

    #[inline(always)]
    fn sum_index(at: usize) -> usize {
        find_run_sum(at)
    }

    #[inline(always)]
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    ) {
        /// For each run of even index, the bit position of its elements' fifth bits.
        const BITS: [u32; 32] = {
            let mut bits = [0; 32];
            let mut i = 0;
            while i < 32 {
                bits[i] = i as u32 / 8 * 2;
                i += 1;
            }
            bits
        };
        // SAFETY: guaranteed by the caller.
        unsafe {
            let block = &*blocks.cast::<Q5K>();
            let scales = decode_scales::<S>(&block.scales);
            for step in 0..256 / (8 * S::WIDTH) {
                let (x, from) = (x.add(step * const { count_step_floats::<S, R>() }), step * S::WIDTH);
                let words = S::Words::load(block.codes.as_ptr().add(4 * from));
                let bits = S::Words::load(BITS.as_ptr().add(from).cast());
                let high = S::Words::load_eight(block.high.as_ptr(), from).shr_each(bits);
                let of = |codes: S::Words, fifth: S::Words| codes.and(0x0f0f_0f0f).or(fifth.and(0x1010_1010));
                let even = R::multiply_bytes(of(words, high.shl::<4>()), x, 0);
                let odd = R::multiply_bytes(of(words.shr::<4>(), high.shl::<3>()), x, 1);
                add_runs::<S>(step, &scales, [even, odd], &mut sums[0]);
            }
            add_sums::<S>(8, &scales, x.add(const { count_chunk_step_floats::<S, R, Self>() }), &mut sums[1]);
        }
    }
}

impl Coded for Q6K {
    const SUMS: usize = SUMS;
    const OF_SUMS: f32 = -32.0;
    const OF_FIELDS: [[f32; 4]; 2] = OF_BYTES;

    /// For 128 elements there are 64 bytes with the codes' low nibbles: the first 64 elements in the low halves, the
    /// others in the high halves.
    #[inline(always)]
    fn first_element(lanes: usize, step: usize, lane: usize, half: usize) -> usize {
        let byte = 4 * (step * lanes + lane);
        byte / 64 * 128 + half * 64 + byte % 64
    }

    #[inline(always)]
    fn sum_index(at: usize) -> usize {
        at / 16
    }

    #[inline(always)]
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    ) {
        // In 32 bytes of bits, the first 32 elements' bits are two positions below the next elements' bits.
        const BITS: [u32; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2];
        // SAFETY: guaranteed by the caller.
        unsafe {
            let block = &*blocks.cast::<Q6K>();
            let d = S::V::widen(u16::from_le_bytes(block.d));
            let scales = block.scales.map(|scale| scale as f32 * d);
            for step in 0..256 / (8 * S::WIDTH) {
                let (x, from) = (x.add(step * const { count_step_floats::<S, R>() }), step * S::WIDTH);
                let words = S::Words::load(block.codes.as_ptr().add(4 * from));
                let bits = S::Words::load(BITS.as_ptr().add(from % 16).cast());
                let high = S::Words::load_eight(block.high.as_ptr().add(from / 16 * 32), from);
                let of = |codes: S::Words, high: S::Words| codes.and(0x0f0f_0f0f).or(high.and(0x3030_3030));
                // The upper half's two bits are in position; the lower half's are four positions below.
                let lower = high.shr_each(bits);
                let low = R::multiply_bytes(of(words, lower.shl::<4>()), x, 0);
                let high = R::multiply_bytes(of(words.shr::<4>(), lower), x, 1);
                // Four runs of 16 are in the low nibbles of 64 bytes, and the next four in the high ones.
                let run = from / 16 * 8 + from % 16 / 4;
                let of = |run: usize| S::Words::spread::<4, 1>(scales.as_ptr().add(run));
                sums[0] = of(run).fma(low, of(run + 4).fma(high, sums[0]));
            }
            let of_sums = x.add(const { count_chunk_step_floats::<S, R, Self>() });
            add_sums::<S>(0, &scales, of_sums, &mut sums[1]);
        }
    }
}
