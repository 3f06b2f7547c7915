//! NormalFloat of 4 bits with double quantisation, as in QLoRA (Dettmers et al., arXiv 2305.14314).
//!
//! 64 elements share a scale a, the largest of their magnitudes, and each is a·table[q]. The scales are quantised, too,
//! in groups of 256: a = s·c + m, with m the mean of all scales of the matrix, c a float of 8 bits (E4M3) and s an f32
//! that maps the group's scale farthest from m to c's largest value. s has 16 significant bits, so s·c is exact and a
//! is rounded once, fused or not.
//!
//! Layout: a group is s and m, then its blocks; a block is c and twice 16 bytes of codes, where byte i holds elements i
//! (low) and 16 + i of 32. Elements are in row-major order, and zeros after the last block pad to a word.

use super::PART;
use super::layout::Layout;
use super::vectors::{Part, look_up_halves, scale_table};
use crate::simd::{Isa, Lanes};

pub struct Nf4;

/// Elements and bytes per block.
pub const ELEMENTS: usize = 64;
pub const BYTES: usize = 1 + ELEMENTS / 2;
/// Blocks per group, and bytes before them.
pub const GROUP: usize = 256;
pub const HEAD: usize = 8;

/// The 16 values: quantiles of a normal distribution, 8 on each side of 0 (appendix E), with the paper's digits.
pub const TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

pub(super) fn count_bytes(blocks: usize) -> usize {
    (blocks.div_ceil(GROUP) * HEAD + blocks * BYTES).next_multiple_of(4)
}

pub(super) fn count_blocks(bytes: usize) -> usize {
    let group = HEAD + GROUP * BYTES;
    bytes / group * GROUP + (bytes % group).saturating_sub(HEAD) / BYTES
}

/// The offset of a block.
#[inline(always)]
pub(super) fn locate_block(block: usize) -> usize {
    (block / GROUP + 1) * HEAD + block * BYTES
}

/// The value of a float of 8 bits, E4M3.
#[inline(always)]
pub(super) fn decode_e4m3(code: u8) -> f32 {
    // The exponent bias is 120 less; multiplying by 2^120 is exact and normalises subnormal numbers.
    let scaled = f32::from_bits((code as u32 & 127) << 20) * f32::from_bits((120 + 127) << 23);
    f32::from_bits(scaled.to_bits() | (code as u32 & 128) << 24)
}

impl Layout for Nf4 {
    const ELEMENTS: usize = ELEMENTS;
    const BYTES: usize = BYTES;

    #[inline(always)]
    unsafe fn load_part<S: Isa>(blocks: *const u8, part: usize) -> Part<S::V> {
        let block = part / (ELEMENTS / PART);
        let at = locate_block(block);
        // SAFETY: guaranteed by the caller.
        unsafe {
            let head = &*blocks.add(block / GROUP * (HEAD + GROUP * BYTES)).cast::<[[u8; 4]; 2]>();
            let codes = blocks.add(at + 1 + part % (ELEMENTS / PART) * (PART / 2));
            let [scale, mean] = head.map(f32::from_le_bytes);
            let scale = decode_e4m3(*blocks.add(at)) * scale + mean;
            look_up_halves(&scale_table(&TABLE, S::V::splat(scale), None), codes)
        }
    }
}
