//! Blocks of 32 evenly spaced elements: a scale, in some types a minimum, and codes of 4, 5 or 8 bits. Byte i of the
//! low nibbles has the nibbles of elements i and 16 + i.

use bytemuck::{Pod, Zeroable};

use super::coded::{Coded, OF_NIBBLES, Row, count_step_floats, first_of_halves};
use super::vectors::{COUNTED, Part, look_up_halves, map_vectors, scale_table};
use super::{Block, PART, load_by_unpacking, widen_f16};
use crate::simd::{Isa, Lanes, Words};

/// d·(q − 8).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q4_0 {
    d: [u8; 2],
    codes: [u8; 16],
}

/// d·q + m.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q4_1 {
    d: [u8; 2],
    m: [u8; 2],
    codes: [u8; 16],
}

/// d·(q − 16).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q5_0 {
    d: [u8; 2],
    /// The codes' fifth bits, the first element's lowest.
    high: [u8; 4],
    codes: [u8; 16],
}

/// d·q + m.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q5_1 {
    d: [u8; 2],
    m: [u8; 2],
    high: [u8; 4],
    codes: [u8; 16],
}

/// d·q.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Q8_0 {
    d: [u8; 2],
    codes: [i8; 32],
}

/// Bit `i` of `high`, as the fifth bit of a code.
#[inline(always)]
fn take_fifth_bit(high: u32, i: usize) -> i32 {
    (((high >> i) & 1) << 4) as i32
}

impl Block for Q4_0 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack_part(&self, _: usize, out: &mut [f32; PART]) {
        let d = widen_f16(self.d);
        for i in 0..16 {
            let code = self.codes[i] as i32;
            out[i] = d * ((code & 15) - 8) as f32;
            out[16 + i] = d * ((code >> 4) - 8) as f32;
        }
    }

    #[inline(always)]
    unsafe fn load_vectors<S: Isa>(&self, part: usize) -> Part<S::V> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if S::WIDTH < 8 {
                return load_by_unpacking::<S, Self>(self, part);
            }
            const BASE: [f32; 16] = [-8., -7., -6., -5., -4., -3., -2., -1., 0., 1., 2., 3., 4., 5., 6., 7.];
            let table = scale_table(&BASE, S::V::splat(S::V::widen(u16::from_le_bytes(self.d))), None);
            look_up_halves(&table, self.codes.as_ptr())
        }
    }
}

impl Block for Q4_1 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack_part(&self, _: usize, out: &mut [f32; PART]) {
        let (d, m) = (widen_f16(self.d), widen_f16(self.m));
        for i in 0..16 {
            let code = self.codes[i] as i32;
            out[i] = d * (code & 15) as f32 + m;
            out[16 + i] = d * (code >> 4) as f32 + m;
        }
    }

    #[inline(always)]
    unsafe fn load_vectors<S: Isa>(&self, part: usize) -> Part<S::V> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if S::WIDTH < 8 {
                return load_by_unpacking::<S, Self>(self, part);
            }
            let [d, m] = S::V::splat_halves([self.d, self.m]);
            look_up_halves(&scale_table(&COUNTED, d, Some(m)), self.codes.as_ptr())
        }
    }
}

impl Block for Q5_0 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack_part(&self, _: usize, out: &mut [f32; PART]) {
        let (d, high) = (widen_f16(self.d), u32::from_le_bytes(self.high));
        for i in 0..16 {
            let code = self.codes[i] as i32;
            out[i] = d * ((code & 15 | take_fifth_bit(high, i)) - 16) as f32;
            out[16 + i] = d * ((code >> 4 | take_fifth_bit(high, 16 + i)) - 16) as f32;
        }
    }
}

impl Block for Q5_1 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack_part(&self, _: usize, out: &mut [f32; PART]) {
        let (d, m, high) = (widen_f16(self.d), widen_f16(self.m), u32::from_le_bytes(self.high));
        for i in 0..16 {
            let code = self.codes[i] as i32;
            out[i] = d * (code & 15 | take_fifth_bit(high, i)) as f32 + m;
            out[16 + i] = d * (code >> 4 | take_fifth_bit(high, 16 + i)) as f32 + m;
        }
    }
}

impl Block for Q8_0 {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack_part(&self, _: usize, out: &mut [f32; PART]) {
        let d = widen_f16(self.d);
        for (v, code) in out.iter_mut().zip(&self.codes) {
            *v = *code as f32 * d;
        }
    }

    #[inline(always)]
    unsafe fn load_vectors<S: Isa>(&self, part: usize) -> Part<S::V> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if S::WIDTH < 8 {
                return load_by_unpacking::<S, Self>(self, part);
            }
            let d = S::V::splat(S::V::widen(u16::from_le_bytes(self.d)));
            map_vectors(|i| S::V::load_i8(self.codes.as_ptr().add(i)).mul(d))
        }
    }
}

impl Coded for Q4_0 {
    const SUMS: usize = 4;
    const OF_SUMS: f32 = -8.0;
    const OF_FIELDS: [[f32; 4]; 2] = OF_NIBBLES;

    #[inline(always)]
    fn first_element(_lanes: usize, _step: usize, lane: usize, half: usize) -> usize {
        first_of_halves(lane, half)
    }

    #[inline(always)]
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    ) {
        // SAFETY: guaranteed by the caller; a block is longer than two halves.
        unsafe {
            let codes = S::Words::load_pieces::<BLOCKS>(blocks.add(2), size_of::<Q4_0>());
            let [d, _] = S::Words::spread_halves::<BLOCKS>(blocks, size_of::<Q4_0>());
            sums[0] = d.fma(R::multiply_nibbles(codes, x), sums[0]);
            sums[1] = d.fma(S::V::load(x.add(const { count_step_floats::<S, R>() })), sums[1]);
        }
    }
}

impl Coded for Q4_1 {
    const SUMS: usize = 4;
    const OF_FIELDS: [[f32; 4]; 2] = OF_NIBBLES;

    #[inline(always)]
    fn first_element(_lanes: usize, _step: usize, lane: usize, half: usize) -> usize {
        first_of_halves(lane, half)
    }

    #[inline(always)]
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let codes = S::Words::load_pieces::<BLOCKS>(blocks.add(4), size_of::<Q4_1>());
            let [d, m] = S::Words::spread_halves::<BLOCKS>(blocks, size_of::<Q4_1>());
            sums[0] = d.fma(R::multiply_nibbles(codes, x), sums[0]);
            sums[1] = m.fma(S::V::load(x.add(const { count_step_floats::<S, R>() })), sums[1]);
        }
    }
}

impl Coded for Q8_0 {
    const SUMS: usize = 0;
    /// f32 products already run at memory speed.
    const BYTES: bool = false;
    const OF_FIELDS: [[f32; 4]; 2] = [[1.0; 4]; 2];

    #[inline(always)]
    fn first_element(lanes: usize, _step: usize, lane: usize, half: usize) -> usize {
        4 * half * lanes + lane
    }

    /// Elements in their original order.
    #[inline(always)]
    fn find_element(lanes: usize, step: usize, lane: usize, half: usize, byte: usize) -> usize {
        step * 8 * lanes + Self::first_element(lanes, step, lane, half) + byte * lanes
    }

    #[inline(always)]
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            for i in 0..BLOCKS.min(S::WIDTH / 4) {
                let block = &*blocks.cast::<Q8_0>().add(i);
                let (codes, x) = (block.codes.as_ptr(), x.add(i * PART));
                let mut sum = S::zero();
                for at in (0..PART).step_by(S::WIDTH) {
                    sum = S::V::load_i8(codes.add(at)).fma(S::V::load(x.add(at)), sum);
                }
                let d = S::V::splat(S::V::widen(u16::from_le_bytes(block.d)));
                sums[i % 2] = d.fma(sum, sums[i % 2]);
            }
        }
    }
}
