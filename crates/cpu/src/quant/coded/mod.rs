//! Products of one row by blocks, without unpacking: codes are integers, and their sum is multiplied once by the scale
//! (and the minimum) that they share: Σ x·(d·q + m) = d·Σ x·q + m·Σ x.
//!
//! The row is first arranged in the order of the codes in a vector of words: in f32, or in bytes where the processor
//! multiplies bytes (`row`).

mod row;

use super::{Block, PART};
use crate::simd::{Isa, compiled};
pub use row::{InBytes, InF32, Row};

/// Codes per word: four bytes of two nibbles each, or four of one word and four of another.
const FIELDS: usize = 8;

/// A block type whose codes are multiplied without unpacking.
pub trait Coded: Block {
    /// f32 per block that hold sums of the row's elements, for constants added to codes or to their products.
    const SUMS: usize;
    /// The factor of these sums.
    const OF_SUMS: f32 = 1.0;
    /// Whether codes can be multiplied as bytes: each half of a word has four consecutive elements, and four
    /// consecutive words have 16.
    const BYTES: bool = true;
    /// The factors of a half's elements in f32, which undo the position of the codes in the word.
    const OF_FIELDS: [[f32; 4]; 2];

    /// The first element of the row for a `half` of the word in `lane`, in step `step` of a chunk, where vectors have
    /// `lanes` lanes; relative to the chunk's first element.
    fn first_element(lanes: usize, step: usize, lane: usize, half: usize) -> usize;

    /// The element for byte `byte` of a half.
    #[inline(always)]
    fn find_element(lanes: usize, step: usize, lane: usize, half: usize, byte: usize) -> usize {
        Self::first_element(lanes, step, lane, half) + byte
    }

    /// The index of the chunk's sum that element `at`, and the 15 elements after it, belong to: its block's first.
    #[inline(always)]
    fn sum_index(at: usize) -> usize {
        at / Self::ELEMENTS * Self::SUMS
    }

    /// Adds a chunk's products to `sums`, for the first `BLOCKS` blocks of a vector, or of a superblock. `x` is the
    /// row's part, arranged as R: its steps, then its sums, then zeros.
    ///
    /// # Safety
    /// The processor has S's instructions; `blocks` and `x` cover the chunk.
    unsafe fn add_chunk<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    );
}

/// `Some($what::<B>)` for a block type whose layout B is `Coded`.
macro_rules! of_coded {
    ($kind:expr, $what:ident $(($($arg:expr),*))?) => {
        match $kind {
            $crate::quant::BlockType::Q4_0 => Some($what::<$crate::quant::round::Q4_0>$(($($arg),*))?),
            $crate::quant::BlockType::Q4_1 => Some($what::<$crate::quant::round::Q4_1>$(($($arg),*))?),
            $crate::quant::BlockType::Q8_0 => Some($what::<$crate::quant::round::Q8_0>$(($($arg),*))?),
            $crate::quant::BlockType::Q4K => Some($what::<$crate::quant::superblock::Q4K>$(($($arg),*))?),
            $crate::quant::BlockType::Q5K => Some($what::<$crate::quant::superblock::Q5K>$(($($arg),*))?),
            $crate::quant::BlockType::Q6K => Some($what::<$crate::quant::superblock::Q6K>$(($($arg),*))?),
            _ => None,
        }
    };
}
pub(crate) use of_coded;

/// The arrangement of a row for a matrix of some block type.
#[derive(Clone, Copy)]
pub struct Arrangement {
    /// Elements per block; rows of the matrix are a multiple.
    pub elements: usize,
    /// f32 before the first chunk.
    head: usize,
    /// f32 per chunk, and elements of the row per chunk.
    chunk: [usize; 2],
    arrange: Arrange,
}

type Arrange = unsafe fn(usize, *const f32, *mut f32);

impl Arrangement {
    /// f32 for an arranged row of `k` elements.
    pub fn count_floats(&self, k: usize) -> usize {
        let [floats, elements] = self.chunk;
        self.head + k.div_ceil(elements) * floats
    }

    /// Arranges `k` elements of a row.
    ///
    /// # Safety
    /// The processor has the level's instructions; `to` has `count_floats(k)` elements.
    pub unsafe fn arrange(&self, k: usize, row: *const f32, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { (self.arrange)(k, row, to) };
    }
}

/// Blocks per chunk: as many as fill a vector, or one.
pub const fn count_chunk_blocks<S: Isa, B: Coded>() -> usize {
    let blocks = FIELDS * S::WIDTH / B::ELEMENTS;
    if blocks == 0 { 1 } else { blocks }
}

/// Steps per chunk.
const fn count_steps<S: Isa, B: Coded>() -> usize {
    count_chunk_elements::<S, B>() / (FIELDS * S::WIDTH)
}

/// Elements per chunk.
const fn count_chunk_elements<S: Isa, B: Coded>() -> usize {
    count_chunk_blocks::<S, B>() * B::ELEMENTS
}

/// f32 per step.
pub const fn count_step_floats<S: Isa, R: Row<S>>() -> usize {
    2 * R::HALF * S::WIDTH
}

/// f32 of a chunk's steps; its sums follow.
pub const fn count_chunk_step_floats<S: Isa, R: Row<S>, B: Coded>() -> usize {
    count_steps::<S, B>() * count_step_floats::<S, R>()
}

/// f32 per chunk.
pub const fn count_chunk_floats<S: Isa, R: Row<S>, B: Coded>() -> usize {
    count_chunk_step_floats::<S, R, B>() + count_chunk_blocks::<S, B>() * B::SUMS
}

/// Whether S multiplies the codes of B as bytes.
pub const fn uses_bytes<S: Isa, B: Coded>() -> bool {
    S::BYTES && B::BYTES
}

/// The arrangement for blocks B by the instructions of `level`, which is at most the process's level.
pub fn make_arrangement<B: Coded>(level: crate::simd::Level) -> Arrangement {
    // SAFETY: the processor has the level's instructions.
    let [head, floats, elements] = unsafe { choose_chunk_sizes::<B>(level)() };
    Arrangement { elements: B::ELEMENTS, head, chunk: [floats, elements], arrange: arrange::<B>(level) }
}

/// For a row arranged as R: f32 of its head, f32 per chunk and elements per chunk.
const fn find_chunk_sizes<S: Isa, R: Row<S>, B: Coded>() -> [usize; 3] {
    [R::HEAD, count_chunk_floats::<S, R, B>(), count_chunk_elements::<S, B>()]
}

compiled! {
    paired fn choose_chunk_sizes[B: Coded]() -> [usize; 3] {
        match uses_bytes::<S, B>() {
            true => find_chunk_sizes::<S, InBytes, B>(),
            false => find_chunk_sizes::<S, InF32, B>(),
        }
    }

    fn arrange[B: Coded](k: usize, row: *const f32, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if uses_bytes::<S, B>() {
                <InBytes as Row<S>>::arrange::<B>(k, row, to);
            } else {
                <InF32 as Row<S>>::arrange::<B>(k, row, to);
            }
        }
    }
}

/// 2⁻ⁿ.
const fn inverse_power(bits: i32) -> f32 {
    f32::from_bits(((127 - bits) as u32) << 23)
}

/// Factors for words of nibble pairs, low half and high half; the word's upper two bytes are shifted down first.
pub const OF_NIBBLES: [[f32; 4]; 2] = [
    [1.0, inverse_power(8), 1.0, inverse_power(8)],
    [inverse_power(4), inverse_power(12), inverse_power(4), inverse_power(12)],
];
/// Factors for two words of four bytes each: three in place, the last shifted down.
pub const OF_BYTES: [[f32; 4]; 2] = [[1.0, inverse_power(8), inverse_power(16), 1.0]; 2];

/// `Coded::first_element` for blocks of 32 elements, where byte i holds elements i and 16 + i.
#[inline(always)]
pub fn first_of_halves(lane: usize, half: usize) -> usize {
    lane / 4 * PART + half * 16 + lane % 4 * 4
}
