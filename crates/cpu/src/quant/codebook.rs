//! Blocks whose codes are indices into a table of values.

use bytemuck::{Pod, Zeroable};

use super::vectors::{Part, look_up_halves, scale_table};
use super::{Block, PART, load_by_unpacking, widen_f16};
use crate::simd::{Isa, Lanes};

/// 32 elements d·table[q]; byte i of the codes holds elements i and 16 + i.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Iq4Nl {
    d: [u8; 2],
    codes: [u8; 16],
}

pub const TABLE: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

impl Block for Iq4Nl {
    const ELEMENTS: usize = 32;

    #[inline(always)]
    fn unpack_part(&self, _: usize, out: &mut [f32; PART]) {
        let d = widen_f16(self.d);
        for i in 0..16 {
            let code = self.codes[i] as usize;
            out[i] = d * TABLE[code & 15];
            out[16 + i] = d * TABLE[code >> 4];
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
            look_up_halves(&scale_table(&TABLE, d, None), self.codes.as_ptr())
        }
    }
}
