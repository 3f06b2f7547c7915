//! Superblocks of 256 elements: 8 or 16 runs, each with a scale (and in some a minimum) of few bits, which one or two
//! f16 scale for all.

use bytemuck::{Pod, Zeroable};

use super::coded::{Coded, OF_BYTES, OF_NIBBLES, add_bytes, add_nibbles, sums_of};
use super::vectors::{COUNTED, Part, nibbles, table};
use super::{Block, PART, f16, plain};
use crate::simd::{Isa, Lanes, Words};

/// 16 runs of 16: d·s·q − e·m, with s and m of 4 bits and q of 2.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q2K {
    /// Of each run the scale, low, and the minimum, high.
    scales: [u8; 16],
    codes: [u8; 64],
    d: [u8; 2],
    e: [u8; 2],
}

/// 16 runs of 16: d·(s − 32)·(q − 4), with s of 6 bits and q of 3.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q3K {
    /// The codes' third bits: bit k of byte i is that of element 32·k + i.
    high: [u8; 32],
    codes: [u8; 64],
    scales: [u8; 12],
    d: [u8; 2],
}

/// Of 8 runs s and m of 6 bits each, and what scales them.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Lines {
    d: [u8; 2],
    e: [u8; 2],
    scales: [u8; 12],
}

/// 8 runs of 32: d·s·q − e·m, with s and m of 6 bits and q of 4.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q4K {
    lines: Lines,
    codes: [u8; 128],
}

/// As `Q4K`, with q of 5 bits.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q5K {
    lines: Lines,
    /// The codes' fifth bits: bit k of byte i is that of element 32·k + i.
    high: [u8; 32],
    codes: [u8; 128],
}

/// 16 runs of 16: d·s·(q − 32), with s of 8 bits, signed, and q of 6.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q6K {
    codes: [u8; 128],
    /// The codes' fifth and sixth bits: of byte 32·h + i, those of elements 128·h + 32·k + i for k of 0 to 3.
    high: [u8; 64],
    scales: [i8; 16],
    d: [u8; 2],
}

impl Block for Q2K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn part(&self, part: usize, out: &mut [f32; PART]) {
        let (d, e) = (f16(self.d), f16(self.e));
        for (run, out) in (2 * part..).zip(out.as_chunks_mut::<16>().0) {
            let scale = d * (self.scales[run] & 15) as f32;
            let minimum = e * (self.scales[run] >> 4) as f32;
            let (codes, shift) = codes_of_two_bits(&self.codes, run);
            for i in 0..16 {
                out[i] = scale * ((codes[i] >> shift) & 3) as f32 - minimum;
            }
        }
    }
}

/// The bytes that hold the 16 codes of a run, and at which bit: a byte has elements 32 apart of one half.
#[inline(always)]
fn codes_of_two_bits(codes: &[u8; 64], run: usize) -> (&[u8], usize) {
    (&codes[run / 8 * 32 + run % 2 * 16..][..16], run % 8 / 2 * 2)
}

impl Block for Q3K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn part(&self, part: usize, out: &mut [f32; PART]) {
        let d = f16(self.d);
        for (run, out) in (2 * part..).zip(out.as_chunks_mut::<16>().0) {
            // Eight bytes hold the low nibbles, first those of runs 0 to 7; four the two bits above, of runs 4 apart.
            let low = self.scales[run % 8] >> (run / 8 * 4) & 15;
            let high = self.scales[8 + run % 4] >> (run / 4 * 2) & 3;
            let scale = d * ((low | high << 4) as i32 - 32) as f32;
            let (codes, shift) = codes_of_two_bits(&self.codes, run);
            let (high, bit) = (&self.high[run % 2 * 16..][..16], run / 2);
            for i in 0..16 {
                // 4 is taken off where the bit is clear.
                let code = (codes[i] >> shift & 3) | (high[i] >> bit & 1) << 2;
                out[i] = scale * (code as i32 - 4) as f32;
            }
        }
    }
}

impl Lines {
    /// s and m of a run: those of the first four runs in the low six bits of a byte, whose upper two belong to those of
    /// the last four.
    #[inline(always)]
    fn codes(&self, run: usize) -> (f32, f32) {
        let scales = &self.scales;
        let (scale, minimum) = if run < 4 {
            (scales[run] & 63, scales[4 + run] & 63)
        } else {
            let low = scales[4 + run];
            (low & 15 | scales[run - 4] >> 6 << 4, low >> 4 | scales[run] >> 6 << 4)
        };
        (scale as f32, minimum as f32)
    }

    /// d·s and e·m of a run.
    #[inline(always)]
    fn of(&self, run: usize) -> (f32, f32) {
        let (scale, minimum) = self.codes(run);
        (f16(self.d) * scale, f16(self.e) * minimum)
    }
}

/// The bytes that hold the low 4 bits of the 32 codes of a run, and at which bit: a byte has those of two runs.
#[inline(always)]
fn nibbles_of(codes: &[u8; 128], run: usize) -> (&[u8], usize) {
    (&codes[run / 2 * 32..][..32], run % 2 * 4)
}

impl Block for Q4K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn part(&self, part: usize, out: &mut [f32; PART]) {
        let (scale, minimum) = self.lines.of(part);
        let (codes, shift) = nibbles_of(&self.codes, part);
        for i in 0..32 {
            out[i] = scale * (codes[i] >> shift & 15) as f32 - minimum;
        }
    }

    #[inline(always)]
    unsafe fn vectors<S: Isa>(&self, part: usize) -> Part<S::V> {
        // SAFETY: the caller's.
        unsafe {
            if S::WIDTH < 8 {
                return plain::<S, Self>(self, part);
            }
            let Lines { d, e, .. } = self.lines;
            let [d, e] = [d, e].map(|bytes| S::V::widen(u16::from_le_bytes(bytes)));
            let (scale, minimum) = self.lines.codes(part);
            let [scale, minimum] = [d * scale, -(e * minimum)].map(|v| S::V::splat(v));
            let table = table(&COUNTED, scale, Some(minimum));
            let codes = self.codes.as_ptr().add(part / 2 * 32);
            match part % 2 {
                0 => nibbles::<S::V, 0>(&table, codes),
                _ => nibbles::<S::V, 4>(&table, codes),
            }
        }
    }
}

impl Block for Q5K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn part(&self, part: usize, out: &mut [f32; PART]) {
        let (scale, minimum) = self.lines.of(part);
        let (codes, shift) = nibbles_of(&self.codes, part);
        for i in 0..32 {
            let code = codes[i] >> shift & 15 | (self.high[i] >> part & 1) << 4;
            out[i] = scale * code as f32 - minimum;
        }
    }
}

impl Block for Q6K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn part(&self, part: usize, out: &mut [f32; PART]) {
        let d = f16(self.d);
        for (run, out) in (2 * part..).zip(out.as_chunks_mut::<16>().0) {
            let scale = d * self.scales[run] as f32;
            // Of 128 elements, 64 bytes hold the low nibbles of the first 64, above them those of the others.
            let (half, within) = (run / 8, run % 8);
            let (codes, shift) = (&self.codes[64 * half + within % 4 * 16..][..16], within / 4 * 4);
            let (high, above) = (&self.high[32 * half + within % 2 * 16..][..16], within / 2 * 2);
            for i in 0..16 {
                let code = codes[i] >> shift & 15 | (high[i] >> above & 3) << 4;
                out[i] = scale * (code as i32 - 32) as f32;
            }
        }
    }
}

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
