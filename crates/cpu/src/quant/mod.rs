//! Weights stored in blocks: the elements of a block share a scale, and each is a code of a few bits.
//!
//! The layouts are ggml's (https://github.com/ggml-org/ggml, `ggml-common.h`, `ggml-quants.c`). Unpacked elements have
//! the bits of its reference: products and sums are rounded separately, never fused.

/// `$what::<B>` for the layout B of a block type.
macro_rules! of_layout {
    ($kind:expr, $what:ident $(($($arg:expr),*))?) => {
        match $kind {
            $crate::quant::BlockType::Q4_0 => $what::<$crate::quant::round::Q4_0>$(($($arg),*))?,
            $crate::quant::BlockType::Q4_1 => $what::<$crate::quant::round::Q4_1>$(($($arg),*))?,
            $crate::quant::BlockType::Q5_0 => $what::<$crate::quant::round::Q5_0>$(($($arg),*))?,
            $crate::quant::BlockType::Q5_1 => $what::<$crate::quant::round::Q5_1>$(($($arg),*))?,
            $crate::quant::BlockType::Q8_0 => $what::<$crate::quant::round::Q8_0>$(($($arg),*))?,
            $crate::quant::BlockType::Q2K => $what::<$crate::quant::superblock::Q2K>$(($($arg),*))?,
            $crate::quant::BlockType::Q3K => $what::<$crate::quant::superblock::Q3K>$(($($arg),*))?,
            $crate::quant::BlockType::Q4K => $what::<$crate::quant::superblock::Q4K>$(($($arg),*))?,
            $crate::quant::BlockType::Q5K => $what::<$crate::quant::superblock::Q5K>$(($($arg),*))?,
            $crate::quant::BlockType::Q6K => $what::<$crate::quant::superblock::Q6K>$(($($arg),*))?,
            $crate::quant::BlockType::Iq4Nl => $what::<$crate::quant::codebook::Iq4Nl>$(($($arg),*))?,
            $crate::quant::BlockType::Nf4 => $what::<$crate::quant::nf4::Nf4>$(($($arg),*))?,
        }
    };
}
pub(crate) use of_layout;

pub(crate) mod codebook;
pub(crate) mod coded;
mod layout;
pub mod nf4;
pub mod pack;
pub(crate) mod round;
pub(crate) mod superblock;
#[cfg(test)]
mod tests;
mod vectors;

use bytemuck::Pod;

use crate::simd::{Isa, Lanes, Level, level};
pub use codebook::TABLE as IQ4_NL;
pub(crate) use layout::Layout;
pub use layout::Unpack;
pub(crate) use vectors::Part;

/// A block type. Blocks are contiguous, and none extends past the end of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    /// QLoRA's NormalFloat with double quantisation. Each 256 consecutive blocks of a matrix form a group, across rows.
    Nf4,
}

/// Elements that are unpacked together; every block is a multiple.
pub(crate) const PART: usize = 32;

/// A block as it is stored.
pub(crate) trait Block: Pod {
    const ELEMENTS: usize;

    /// Writes the elements from `PART` · `part` on.
    fn unpack_part(&self, part: usize, out: &mut [f32; PART]);

    /// `unpack_part` as vectors, with the same bits; overridden where that is faster.
    ///
    /// # Safety
    /// The processor has S's instructions.
    #[inline(always)]
    unsafe fn load_vectors<S: Isa>(&self, part: usize) -> Part<S::V> {
        // SAFETY: guaranteed by the caller.
        unsafe { load_by_unpacking::<S, Self>(self, part) }
    }
}

/// `load_vectors`, computed by `unpack_part`.
///
/// # Safety
/// As for `load_vectors`.
#[inline(always)]
unsafe fn load_by_unpacking<S: Isa, B: Block>(block: &B, part: usize) -> Part<S::V> {
    let mut all = [0.0; PART];
    block.unpack_part(part, &mut all);
    // SAFETY: guaranteed by the caller.
    unsafe { vectors::map_vectors(|i| S::V::load(all.as_ptr().add(i))) }
}

impl BlockType {
    /// The types of ggml.
    pub const ALL: [BlockType; 11] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q2K,
        BlockType::Q3K,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
        BlockType::Iq4Nl,
    ];

    /// All types.
    pub const EVERY: [BlockType; 12] = {
        let mut every = [BlockType::Nf4; 12];
        let mut i = 0;
        while i < Self::ALL.len() {
            every[i] = Self::ALL[i];
            i += 1;
        }
        every
    };

    /// Elements per block.
    pub const fn elements(self) -> usize {
        const fn elements<B: Layout>() -> usize {
            B::ELEMENTS
        }
        of_layout!(self, elements())
    }

    /// Bytes per block.
    pub const fn bytes(self) -> usize {
        const fn bytes<B: Layout>() -> usize {
            B::BYTES
        }
        of_layout!(self, bytes())
    }

    /// Bytes of a matrix of `elements`, a whole number of blocks.
    pub fn byte_size(self, elements: usize) -> usize {
        let blocks = elements / self.elements();
        match self {
            BlockType::Nf4 => nf4::count_bytes(blocks),
            _ => blocks * self.bytes(),
        }
    }

    /// Elements of a matrix of `bytes`.
    pub fn count_elements(self, bytes: usize) -> usize {
        let blocks = match self {
            BlockType::Nf4 => nf4::count_blocks(bytes),
            _ => bytes / self.bytes(),
        };
        blocks * self.elements()
    }

    /// Whether whole blocks of a matrix are a valid matrix by themselves.
    pub fn is_divisible(self) -> bool {
        self != BlockType::Nf4
    }

    /// The function that unpacks this type by the instructions of `level`.
    pub fn select_unpack(self, level: Level) -> Unpack {
        of_layout!(self, select_layout_unpack(level))
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            BlockType::Q4_0 => "q4_0",
            BlockType::Q4_1 => "q4_1",
            BlockType::Q5_0 => "q5_0",
            BlockType::Q5_1 => "q5_1",
            BlockType::Q8_0 => "q8_0",
            BlockType::Q2K => "q2_k",
            BlockType::Q3K => "q3_k",
            BlockType::Q4K => "q4_k",
            BlockType::Q5K => "q5_k",
            BlockType::Q6K => "q6_k",
            BlockType::Iq4Nl => "iq4_nl",
            BlockType::Nf4 => "nf4",
        }
    }

    pub fn parse(name: &str) -> Option<BlockType> {
        Self::EVERY.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn select_layout_unpack<B: Layout>(level: Level) -> Unpack {
    layout::unpack::<B>(level)
}

/// Unpacks a matrix in blocks of `kind` to `out`, which has exactly its number of elements.
pub fn unpack(kind: BlockType, blocks: &[u8], out: &mut [f32]) {
    assert!(
        blocks.len() == kind.byte_size(out.len()) && out.len().is_multiple_of(kind.elements()),
        "{} bytes of {kind} are no {} elements",
        blocks.len(),
        out.len()
    );
    // SAFETY: the processor has its level's instructions, and the blocks cover `out`.
    unsafe { kind.select_unpack(level())(blocks.as_ptr(), 0, out.len(), out.as_mut_ptr()) };
}

/// The value of a little-endian f16; branch-free, and exact for subnormal numbers, too.
#[inline(always)]
fn widen_f16(bytes: [u8; 2]) -> f32 {
    let bits = u16::from_le_bytes(bytes) as u32;
    // The exponent bias of f16 is 112 less; multiplying by 2^112 is exact and normalises subnormal numbers.
    let scaled = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((112 + 127) << 23);
    // Infinity and NaN keep the highest exponent.
    let special = if scaled >= 65536.0 { 0xff << 23 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | (bits & 0x8000) << 16)
}
