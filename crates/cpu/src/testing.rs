//! Reproducible inputs of tests and benchmarks, here and in the engine.

use crate::quant::{BlockType, nf4, unpack};

/// `size` values in (−1, 1) from a hash of `name`, exact in f32. A shorter list is a prefix of a longer one, and
/// `test/parity` computes the same values.
pub fn hash_values(name: &str, size: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0x811c9dc5u32, |h, b| (h ^ b as u32).wrapping_mul(0x01000193));
    let value = |i: u32| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e3779b9));
        z = (z ^ (z >> 16)).wrapping_mul(0x85ebca6b);
        z = (z ^ (z >> 13)).wrapping_mul(0xc2b2ae35);
        z ^= z >> 16;
        ((z >> 8) as f64 / (1u32 << 24) as f64 - 0.5) * 2.0
    };
    (0..size as u32).map(value).collect()
}

/// A random matrix of `elements` in blocks of `kind`: any codes, and scales of usual size and either sign.
pub fn draw_blocks(kind: BlockType, elements: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2654435761).wrapping_add(12345);
    let mut next = move || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 16) as u16
    };
    let mut blocks: Vec<u8> = (0..kind.byte_size(elements)).map(|_| next() as u8).collect();
    if kind == BlockType::Nf4 {
        for group in blocks.chunks_mut(nf4::HEAD + nf4::GROUP * nf4::BYTES) {
            let step = f32::from_bits(0x3a5b_6d00 + ((next() as u32) << 8 & 0xf00));
            group[..4].copy_from_slice(&step.to_le_bytes());
            group[4..8].copy_from_slice(&0.0371f32.to_le_bytes());
            for block in group[8..].chunks_mut(nf4::BYTES) {
                // Avoids E4M3's two NaNs.
                block[0] = if block[0] & 127 == 127 { 64 } else { block[0] };
            }
        }
        return blocks;
    }
    let halves: &[usize] = match kind {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 | BlockType::Iq4Nl => &[0],
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        BlockType::Nf4 => unreachable!(),
    };
    for block in blocks.chunks_mut(kind.bytes()) {
        for at in halves {
            // 2^-6 to 2^-4, and either sign.
            let half = next() & 0x83ff | 0x2400 | (next() & 1) << 10;
            block[*at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
    }
    blocks
}

/// The elements of a matrix in blocks of `kind`.
pub fn unpack_all(kind: BlockType, blocks: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; kind.count_elements(blocks.len())];
    unpack(kind, blocks, &mut out);
    out
}
