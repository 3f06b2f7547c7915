//! Weights stored in blocks: some elements share a scale, and each is a code of a few bits.
//!
//! The layouts are ggml's (https://github.com/ggml-org/ggml, `ggml-common.h`, `ggml-quants.c`), and what is unpacked has
//! the bits that its reference gives: products and sums are rounded one by one, never fused.

/// Gives `$what::<B>` of the block's layout.
macro_rules! of_layout {
    ($kind:expr, $what:ident $(($($arg:expr),*))?) => {
        match $kind {
            BlockType::Q4_0 => $what::<round::Q4_0>$(($($arg),*))?,
            BlockType::Q4_1 => $what::<round::Q4_1>$(($($arg),*))?,
            BlockType::Q5_0 => $what::<round::Q5_0>$(($($arg),*))?,
            BlockType::Q5_1 => $what::<round::Q5_1>$(($($arg),*))?,
            BlockType::Q8_0 => $what::<round::Q8_0>$(($($arg),*))?,
            BlockType::Q2K => $what::<superblock::Q2K>$(($($arg),*))?,
            BlockType::Q3K => $what::<superblock::Q3K>$(($($arg),*))?,
            BlockType::Q4K => $what::<superblock::Q4K>$(($($arg),*))?,
            BlockType::Q5K => $what::<superblock::Q5K>$(($($arg),*))?,
            BlockType::Q6K => $what::<superblock::Q6K>$(($($arg),*))?,
            BlockType::Iq4Nl => $what::<codebook::Iq4Nl>$(($($arg),*))?,
        }
    };
}

mod codebook;
mod round;
mod superblock;
#[cfg(test)]
mod tests;

use bytemuck::Pod;

use crate::simd::vectorised;

/// A format of blocks. Its blocks lie one after another, and none reaches over the end of a row.
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
}

/// A block as it is stored.
trait Block: Pod {
    const ELEMENTS: usize;

    /// Writes its elements, `ELEMENTS` of them.
    fn unpack(&self, out: &mut [f32]);
}

impl BlockType {
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

    /// Elements of a block.
    pub const fn elements(self) -> usize {
        const fn elements<B: Block>() -> usize {
            B::ELEMENTS
        }
        of_layout!(self, elements())
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        const fn bytes<B: Block>() -> usize {
            size_of::<B>()
        }
        of_layout!(self, bytes())
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
        }
    }

    pub fn parse(name: &str) -> Option<BlockType> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes the elements of `blocks`, which are whole blocks of `kind`, to `out`, which has room for exactly these.
pub fn unpack(kind: BlockType, blocks: &[u8], out: &mut [f32]) {
    let count = blocks.len() / kind.bytes();
    assert!(
        blocks.len() == count * kind.bytes() && out.len() == count * kind.elements(),
        "{} bytes of {kind} are no {} elements",
        blocks.len(),
        out.len()
    );
    of_layout!(kind, each(blocks, out))
}

vectorised! {
    fn each[B: Block](blocks: &[u8], out: &mut [f32]) {
        let blocks: &[B] = bytemuck::cast_slice(blocks);
        for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::ELEMENTS)) {
            block.unpack(out);
        }
    }
}

/// The value of an f16, whose bytes are low first. Without a branch, and exact: of subnormal ones, too.
#[inline(always)]
fn f16(bytes: [u8; 2]) -> f32 {
    let bits = u16::from_le_bytes(bytes) as u32;
    // Exponents of f16 are 112 less; a product by 2^112 is exact, and normalises what is subnormal.
    let scaled = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((112 + 127) << 23);
    // Infinity and what is no number keep the highest exponent.
    let special = if scaled >= 65536.0 { 0xff << 23 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | (bits & 0x8000) << 16)
}
