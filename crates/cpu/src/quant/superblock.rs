//! Superblocks of 256 elements: 8 or 16 runs, each with a scale (and in some types a minimum) of a few bits, which one
//! or two f16 of the superblock scale.

mod coded;

use bytemuck::{Pod, Zeroable};

use super::vectors::{COUNTED, Part, look_up_nibbles, scale_table};
use super::{Block, PART, load_by_unpacking, widen_f16};
use crate::simd::{Isa, Lanes};

/// 16 runs of 16: d·s·q − e·m, with s and m of 4 bits and q of 2.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q2K {
    /// By run, the scale in the low nibble and the minimum in the high one.
    scales: [u8; 16],
    codes: [u8; 64],
    d: [u8; 2],
    e: [u8; 2],
}

/// 16 runs of 16: d·(s − 32)·(q − 4), with s of 6 bits and q of 3.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q3K {
    /// The codes' third bits: bit k of byte i belongs to element 32·k + i.
    high: [u8; 32],
    codes: [u8; 64],
    scales: [u8; 12],
    d: [u8; 2],
}

/// s and m of 8 runs, 6 bits each, and their scales.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RunScales {
    d: [u8; 2],
    e: [u8; 2],
    scales: [u8; 12],
}

/// 8 runs of 32: d·s·q − e·m, with s and m of 6 bits and q of 4.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q4K {
    scales: RunScales,
    codes: [u8; 128],
}

/// As `Q4K`, with q of 5 bits.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q5K {
    scales: RunScales,
    /// The codes' fifth bits: bit k of byte i belongs to element 32·k + i.
    high: [u8; 32],
    codes: [u8; 128],
}

/// 16 runs of 16: d·s·(q − 32), with s of 8 bits, signed, and q of 6.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q6K {
    codes: [u8; 128],
    /// The codes' fifth and sixth bits: byte 32·h + i has the bits of elements 128·h + 32·k + i, for k from 0 to 3.
    high: [u8; 64],
    scales: [i8; 16],
    d: [u8; 2],
}

impl Block for Q2K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack_part(&self, part: usize, out: &mut [f32; PART]) {
        let (d, e) = (widen_f16(self.d), widen_f16(self.e));
        for (run, out) in (2 * part..).zip(out.as_chunks_mut::<16>().0) {
            let scale = d * (self.scales[run] & 15) as f32;
            let minimum = e * (self.scales[run] >> 4) as f32;
            let (codes, shift) = locate_2_bit_codes(&self.codes, run);
            for i in 0..16 {
                out[i] = scale * ((codes[i] >> shift) & 3) as f32 - minimum;
            }
        }
    }
}

/// The bytes with the 16 codes of a run, and the bit at which a code starts: a byte has elements of one half at a
/// stride of 32.
#[inline(always)]
fn locate_2_bit_codes(codes: &[u8; 64], run: usize) -> (&[u8], usize) {
    (&codes[run / 8 * 32 + run % 2 * 16..][..16], run % 8 / 2 * 2)
}

impl Block for Q3K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack_part(&self, part: usize, out: &mut [f32; PART]) {
        let d = widen_f16(self.d);
        for (run, out) in (2 * part..).zip(out.as_chunks_mut::<16>().0) {
            // Eight bytes hold the low nibbles, with runs 0 to 7 in their low halves; four bytes hold the two upper
            // bits, of runs at a stride of 4.
            let low = self.scales[run % 8] >> (run / 8 * 4) & 15;
            let high = self.scales[8 + run % 4] >> (run / 4 * 2) & 3;
            let scale = d * ((low | high << 4) as i32 - 32) as f32;
            let (codes, shift) = locate_2_bit_codes(&self.codes, run);
            let (high, bit) = (&self.high[run % 2 * 16..][..16], run / 2);
            for i in 0..16 {
                // 4 is subtracted where the bit is clear.
                let code = (codes[i] >> shift & 3) | (high[i] >> bit & 1) << 2;
                out[i] = scale * (code as i32 - 4) as f32;
            }
        }
    }
}

impl RunScales {
    /// s and m of a run. The low six bits of a byte belong to one of the first four runs, the upper two to one of the
    /// last four.
    #[inline(always)]
    fn decode(&self, run: usize) -> (f32, f32) {
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
    fn scale_and_minimum(&self, run: usize) -> (f32, f32) {
        let (scale, minimum) = self.decode(run);
        (widen_f16(self.d) * scale, widen_f16(self.e) * minimum)
    }
}

/// The bytes with the low 4 bits of the 32 codes of a run, and the bit at which they start: a byte has two runs.
#[inline(always)]
fn locate_nibbles(codes: &[u8; 128], run: usize) -> (&[u8], usize) {
    (&codes[run / 2 * 32..][..32], run % 2 * 4)
}

impl Block for Q4K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack_part(&self, part: usize, out: &mut [f32; PART]) {
        let (scale, minimum) = self.scales.scale_and_minimum(part);
        let (codes, shift) = locate_nibbles(&self.codes, part);
        for i in 0..32 {
            out[i] = scale * (codes[i] >> shift & 15) as f32 - minimum;
        }
    }

    #[inline(always)]
    unsafe fn load_vectors<S: Isa>(&self, part: usize) -> Part<S::V> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if S::WIDTH < 8 {
                return load_by_unpacking::<S, Self>(self, part);
            }
            let RunScales { d, e, .. } = self.scales;
            let [d, e] = [d, e].map(|bytes| S::V::widen(u16::from_le_bytes(bytes)));
            let (scale, minimum) = self.scales.decode(part);
            let [scale, minimum] = [d * scale, -(e * minimum)].map(|v| S::V::splat(v));
            let table = scale_table(&COUNTED, scale, Some(minimum));
            let codes = self.codes.as_ptr().add(part / 2 * 32);
            match part % 2 {
                0 => look_up_nibbles::<S::V, 0>(&table, codes),
                _ => look_up_nibbles::<S::V, 4>(&table, codes),
            }
        }
    }
}

impl Block for Q5K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack_part(&self, part: usize, out: &mut [f32; PART]) {
        let (scale, minimum) = self.scales.scale_and_minimum(part);
        let (codes, shift) = locate_nibbles(&self.codes, part);
        for i in 0..32 {
            let code = codes[i] >> shift & 15 | (self.high[i] >> part & 1) << 4;
            out[i] = scale * code as f32 - minimum;
        }
    }
}

impl Block for Q6K {
    const ELEMENTS: usize = 256;

    #[inline(always)]
    fn unpack_part(&self, part: usize, out: &mut [f32; PART]) {
        let d = widen_f16(self.d);
        for (run, out) in (2 * part..).zip(out.as_chunks_mut::<16>().0) {
            let scale = d * self.scales[run] as f32;
            // For 128 elements there are 64 bytes with the codes' low nibbles: the first 64 elements in the low halves,
            // the others in the high halves.
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
