//! One row of a product by blocks as they lie: codes are whole numbers, and the scale (and the minimum) that some share
//! meets their sum once. Σ x·(d·q + m) = d·Σ x·q + m·Σ x.
//!
//! For that the row is arranged once, as the codes in a vector of words meet it: in f32, or in bytes where the processor
//! multiplies these (`row`).

mod row;

use super::{Block, PART};
use crate::simd::{Isa, compiled};
pub use row::{InBytes, InF32, Row};

/// Codes of a word: four bytes of two halves each, or four of one word and four of another.
const FIELDS: usize = 8;

/// Blocks whose codes are multiplied as they lie.
pub trait Coded: Block {
    /// f32 of a block that hold sums of a row's elements, for what is added to codes or to their products.
    const SUMS: usize;
    /// What these sums are multiplied by.
    const OF_SUMS: f32 = 1.0;
    /// Whether codes can be multiplied as bytes: each half of a word's has four elements in a row, and four words in a
    /// row have 16.
    const BYTES: bool = true;
    /// In f32, what a half's elements are multiplied by: one over their codes' places in the word.
    const OF_FIELDS: [[f32; 4]; 2];

    /// The first element of a row that a `half` of a word, that of `lane`, meets in step `step` of a turn, where vectors
    /// have `lanes`; counted from the turn's first.
    fn first(lanes: usize, step: usize, lane: usize, half: usize) -> usize;

    /// The element that a half's byte number `byte` meets.
    #[inline(always)]
    fn element(lanes: usize, step: usize, lane: usize, half: usize, byte: usize) -> usize {
        Self::first(lanes, step, lane, half) + byte
    }

    /// Which of a turn's sums the element `at` belongs to, as all of the 16 that it is one of: its block's first.
    #[inline(always)]
    fn sum_of(at: usize) -> usize {
        at / Self::ELEMENTS * Self::SUMS
    }

    /// Adds a turn's products to `sums`: those of the `BLOCKS` first of the blocks that fill a vector, or of a
    /// superblock. `x` is the row's part, arranged as R: its steps, then its sums; past it are zeros.
    ///
    /// # Safety
    /// The processor has S's instructions; `blocks` and `x` reach over the turn.
    unsafe fn turn<S: Isa, R: Row<S>, const BLOCKS: usize>(
        blocks: *const u8,
        x: *const f32,
        sums: &mut [S::V; 2],
    );
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
    /// f32 before the first turn.
    head: usize,
    /// f32 that a turn takes, and elements of the row that these hold.
    turn: [usize; 2],
    arrange: Arrange,
}

type Arrange = unsafe fn(usize, *const f32, *mut f32);

impl Arrangement {
    /// f32 that a row of `k` elements takes.
    pub fn room(&self, k: usize) -> usize {
        let [floats, elements] = self.turn;
        self.head + k.div_ceil(elements) * floats
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

/// Blocks of a turn: as many as fill a vector's step, or one.
pub const fn blocks_of_a_turn<S: Isa, B: Coded>() -> usize {
    let blocks = FIELDS * S::WIDTH / B::ELEMENTS;
    if blocks == 0 { 1 } else { blocks }
}

/// Steps of a turn.
const fn steps<S: Isa, B: Coded>() -> usize {
    elements_of_a_turn::<S, B>() / (FIELDS * S::WIDTH)
}

/// Elements of a turn.
const fn elements_of_a_turn<S: Isa, B: Coded>() -> usize {
    blocks_of_a_turn::<S, B>() * B::ELEMENTS
}

/// f32 of a step.
pub const fn floats_of_a_step<S: Isa, R: Row<S>>() -> usize {
    2 * R::HALF * S::WIDTH
}

/// f32 of a turn's steps, after which its sums begin.
pub const fn floats_of_steps<S: Isa, R: Row<S>, B: Coded>() -> usize {
    steps::<S, B>() * floats_of_a_step::<S, R>()
}

/// f32 of a turn.
pub const fn floats_of_a_turn<S: Isa, R: Row<S>, B: Coded>() -> usize {
    floats_of_steps::<S, R, B>() + blocks_of_a_turn::<S, B>() * B::SUMS
}

/// Whether S multiplies the codes of B as bytes.
pub const fn as_bytes<S: Isa, B: Coded>() -> bool {
    S::BYTES && B::BYTES
}

/// The arrangement for blocks B by the instructions of `level`, which is the process's or less.
pub fn arrangement<B: Coded>(level: crate::simd::Level) -> Arrangement {
    // SAFETY: the processor has the level's instructions.
    let [head, floats, elements] = unsafe { sizes::<B>(level)() };
    Arrangement { elements: B::ELEMENTS, head, turn: [floats, elements], arrange: arrange::<B>(level) }
}

/// Of a row that is R, f32 of its head and of a turn, and a turn's elements.
const fn sizes_of<S: Isa, R: Row<S>, B: Coded>() -> [usize; 3] {
    [R::HEAD, floats_of_a_turn::<S, R, B>(), elements_of_a_turn::<S, B>()]
}

compiled! {
    paired fn sizes[B: Coded]() -> [usize; 3] {
        if as_bytes::<S, B>() { sizes_of::<S, InBytes, B>() } else { sizes_of::<S, InF32, B>() }
    }

    fn arrange[B: Coded](k: usize, row: *const f32, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe {
            if as_bytes::<S, B>() {
                <InBytes as Row<S>>::arrange::<B>(k, row, to);
            } else {
                <InF32 as Row<S>>::arrange::<B>(k, row, to);
            }
        }
    }
}

/// 2⁻ⁿ.
const fn over(bits: i32) -> f32 {
    f32::from_bits(((127 - bits) as u32) << 23)
}

/// Of words whose bytes are nibbles of a low half and of a high one: where they stand, those of the word's upper bytes
/// once these are moved down.
pub const OF_NIBBLES: [[f32; 4]; 2] = [[1.0, over(8), 1.0, over(8)], [over(4), over(12), over(4), over(12)]];
/// Of two words of four bytes each: three where they stand, and the last moved down.
pub const OF_BYTES: [[f32; 4]; 2] = [[1.0, over(8), over(16), 1.0]; 2];

/// `Coded::first` for blocks of 32 whose byte i holds elements i and 16 + i.
#[inline(always)]
pub fn of_halves(lane: usize, half: usize) -> usize {
    lane / 4 * PART + half * 16 + lane % 4 * 4
}
