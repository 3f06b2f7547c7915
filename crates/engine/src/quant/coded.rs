//! One row of a product by blocks as they lie: codes are whole numbers, and the scale (and the minimum) that some share
//! meets their sum once. Σ x·(d·q + m) = d·Σ x·q + m·Σ x.
//!
//! A word of codes holds eight fields. A field becomes a number where it stands in its word, times a power of two that
//! the row's elements are divided by beforehand, so that it takes a mask, a conversion and a multiply-add, and nothing
//! that moves codes from lane to lane. For that the row is arranged once, as the fields of the words meet it.

use super::{Block, PART};
use crate::simd::{Isa, Lanes, Words, compiled};

/// Fields of a word; a vector's step takes as many elements of a row for each lane.
const FIELDS: usize = 8;

/// Blocks whose codes are multiplied as they lie.
pub trait Coded: Block {
    /// Sums of a row's elements that stand beside the fields, for what is added to codes or to their products.
    const SUMS: usize;
    /// What these sums are multiplied by.
    const OF_SUMS: f32 = 1.0;
    /// What a field's elements are multiplied by: one over its place in the word.
    const OF_FIELDS: [f32; FIELDS];

    /// The element of a row that the `field` of `lane` meets in step `step` of a block, where vectors have `lanes`;
    /// counted from the turn's first.
    fn element(lanes: usize, step: usize, lane: usize, field: usize) -> usize;

    /// Which of the sums a field's elements belong to.
    fn sum_of(_field: usize) -> usize {
        0
    }

    /// Adds a turn's products to `sums`: those of the `BLOCKS` first of the blocks that fill a vector, or of a
    /// superblock. `x` is the row's part, arranged; past it are zeros.
    ///
    /// # Safety
    /// The processor has S's instructions; `blocks` and `x` reach over the turn.
    unsafe fn turn<S: Isa, const BLOCKS: usize>(blocks: *const u8, x: *const f32, sums: &mut [S::V; 2]);
}

/// Gives `Some($what::<B>)` of a block's layout that is `Coded`.
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

/// How a row meets a matrix of some blocks.
#[derive(Clone, Copy)]
pub struct Arrangement {
    /// Elements of a block, of which rows of the matrix have a multiple.
    pub elements: usize,
    /// f32 that a step takes, and elements of the row that these hold.
    step: [usize; 2],
    arrange: Arrange,
}

type Arrange = unsafe fn(usize, *const f32, *mut f32);

impl Arrangement {
    /// f32 that a row of `k` elements takes.
    pub fn room(&self, k: usize) -> usize {
        let [floats, elements] = self.step;
        k.div_ceil(elements) * floats
    }

    /// Arranges `k` elements of a row.
    ///
    /// # Safety
    /// The processor has the level's instructions; `to` has room for these.
    pub unsafe fn arrange(&self, k: usize, row: *const f32, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { (self.arrange)(k, row, to) };
    }
}

/// f32 of a step, of vectors of `lanes`.
const fn floats<B: Coded>(lanes: usize) -> usize {
    (FIELDS + B::SUMS) * lanes
}

/// Blocks of a turn: as many as fill a vector's step, or one.
pub const fn blocks_of_a_turn<S: Isa, B: Coded>() -> usize {
    let blocks = FIELDS * S::WIDTH / B::ELEMENTS;
    if blocks == 0 { 1 } else { blocks }
}

/// Steps of a turn.
const fn steps<S: Isa, B: Coded>() -> usize {
    blocks_of_a_turn::<S, B>() * B::ELEMENTS / (FIELDS * S::WIDTH)
}

/// f32 of a turn.
pub const fn floats_of_a_turn<S: Isa, B: Coded>() -> usize {
    steps::<S, B>() * floats::<B>(S::WIDTH)
}

/// The arrangement for blocks B by the instructions of `level`.
pub fn arrangement<B: Coded>(level: crate::simd::Level) -> Arrangement {
    // SAFETY: it runs none of the level's instructions.
    let lanes = unsafe { lanes(level)() };
    Arrangement {
        elements: B::ELEMENTS,
        step: [floats::<B>(lanes), FIELDS * lanes],
        arrange: arrange::<B>(level),
    }
}

compiled! {
    exact fn lanes() -> usize {
        S::WIDTH
    }

    fn arrange[B: Coded](k: usize, row: *const f32, to: *mut f32) {
        let (lanes, steps) = (S::WIDTH, const { steps::<S, B>() });
        let of_step = FIELDS * lanes;
        for step in 0..k.div_ceil(of_step) {
            let first = step / steps * steps * of_step;
            // SAFETY: the caller's; past the row's end nothing is read.
            unsafe {
                let to = to.add(step * floats::<B>(lanes));
                for lane in 0..lanes {
                    let mut sums = [0.0; 2];
                    for field in 0..FIELDS {
                        let at = first + B::element(lanes, step % steps, lane, field);
                        let x = if at < k { *row.add(at) } else { 0.0 };
                        *to.add(field * lanes + lane) = x * B::OF_FIELDS[field];
                        sums[B::sum_of(field)] += x;
                    }
                    for (i, sum) in sums.iter().enumerate().take(B::SUMS) {
                        *to.add((FIELDS + i) * lanes + lane) = sum * B::OF_SUMS;
                    }
                }
            }
        }
    }
}

/// 2⁻ⁿ.
const fn over(bits: i32) -> f32 {
    f32::from_bits(((127 - bits) as u32) << 23)
}

/// Of words whose fields are nibbles, low to high: four where they stand, and four once the upper half is moved down.
pub const OF_NIBBLES: [f32; FIELDS] = [1.0, over(4), over(8), over(12), 1.0, over(4), over(8), over(12)];
/// Of two words of four bytes each: three where they stand, and the last moved down.
pub const OF_BYTES: [f32; FIELDS] = [1.0, over(8), over(16), 1.0, 1.0, over(8), over(16), 1.0];

/// Adds the products of words of eight nibbles, those at even places and those at odd ones.
///
/// # Safety
/// As `Coded::turn`, of a step.
#[inline(always)]
pub unsafe fn add_nibbles<S: Isa>(words: S::Words, x: *const f32, sums: [S::V; 2]) -> [S::V; 2] {
    let [mut even, mut odd] = sums;
    // SAFETY: the caller's.
    unsafe {
        for (half, words) in [words, words.shr::<16>()].into_iter().enumerate() {
            let x = |field: usize| S::V::load(x.add((4 * half + field) * S::WIDTH));
            even = words.and(0xf).to_f32().fma(x(0), even);
            odd = words.and(0xf0).to_f32().fma(x(1), odd);
            even = words.and(0xf00).to_f32().fma(x(2), even);
            odd = words.and(0xf000).to_f32().fma(x(3), odd);
        }
    }
    [even, odd]
}

/// Adds the products of words of four bytes, none of which is above 63.
///
/// # Safety
/// As `Coded::turn`, of half a step.
#[inline(always)]
pub unsafe fn add_bytes<S: Isa>(words: S::Words, x: *const f32, sum: S::V) -> S::V {
    // SAFETY: the caller's.
    unsafe {
        let x = |field: usize| S::V::load(x.add(field * S::WIDTH));
        let low = words.and(0x3f).to_f32().fma(x(0), sum);
        let low = words.and(0x3f00).to_f32().fma(x(1), low);
        let high = words.and(0x3f_0000).to_f32().mul(x(2));
        words.shr::<24>().to_f32().fma(x(3), high).add(low)
    }
}

/// The vector of a step's sums, number `i`.
///
/// # Safety
/// As `Coded::turn`.
#[inline(always)]
pub unsafe fn sums_of<S: Isa>(x: *const f32, i: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { S::V::load(x.add((FIELDS + i) * S::WIDTH)) }
}

/// The element of `Coded::element` for blocks of 32 whose byte i holds elements i and 16 + i.
#[inline(always)]
pub fn of_halves(lane: usize, field: usize) -> usize {
    lane / 4 * PART + field % 2 * 16 + lane % 4 * 4 + field / 2
}
