//! Tests of unpacking; `packed` tests quantisation.

mod packed;

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::format::safetensors::Reader;
use crate::simd::{Level, level};

/// Blocks of each type, unpacked by ggml's reference in Python: `test/parity/gguf_blocks.py`.
fn golden() -> HashMap<BlockType, (Vec<u8>, Vec<f32>)> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/parity/goldens/gguf_blocks.safetensors");
    let file = Reader::open(path).unwrap();
    let stored = |name: String| file.read(file.entry(&name).expect(&name), <[u8]>::to_vec).unwrap();
    BlockType::ALL
        .into_iter()
        .map(|kind| {
            let values = stored(format!("{kind}.values"));
            let values = values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
            (kind, (stored(format!("{kind}.blocks")), values))
        })
        .collect()
}

/// Requires the same bits; any NaN equals any other.
fn assert_same(kind: BlockType, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        let (block, at) = (i / kind.elements(), i % kind.elements());
        assert!(same, "{kind}: block {block}, element {at}: {got:e} is not {expected:e}");
    }
}

#[test]
fn blocks_have_the_bits_of_the_reference() {
    for (kind, (blocks, expected)) in golden() {
        let mut out = vec![0.0; expected.len()];
        unpack(kind, &blocks, &mut out);
        assert_same(kind, &out, &expected);
        // At an unaligned address, one by one.
        let shifted = [&[0], &blocks[..]].concat();
        for (i, expected) in expected.chunks(kind.elements()).enumerate() {
            let mut out = vec![0.0; kind.elements()];
            unpack(kind, &shifted[1 + i * kind.bytes()..][..kind.bytes()], &mut out);
            assert_same(kind, &out, expected);
        }
    }
}

/// Instructions that fuse, or that flush subnormal numbers, would change bits.
#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (kind, (blocks, expected)) in golden() {
        for at in Level::ALL.iter().filter(|at| **at <= level()) {
            let mut out = vec![0.0; expected.len()];
            // SAFETY: the process's level is at least this one.
            unsafe { kind.unpacking(*at)(blocks.as_ptr(), 0, out.len(), out.as_mut_ptr()) };
            assert_same(kind, &out, &expected);
        }
    }
}

#[test]
fn every_f16_is_widened_as_half_does() {
    for bits in 0..=u16::MAX {
        let (got, expected) = (f16(bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
        assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{bits:#06x}");
    }
}

#[test]
fn sizes_and_names() {
    let sizes: Vec<_> = BlockType::ALL.map(|k| (k.as_str(), k.elements(), k.bytes())).into();
    let expected = [
        ("q4_0", 32, 18),
        ("q4_1", 32, 20),
        ("q5_0", 32, 22),
        ("q5_1", 32, 24),
        ("q8_0", 32, 34),
        ("q2_k", 256, 84),
        ("q3_k", 256, 110),
        ("q4_k", 256, 144),
        ("q5_k", 256, 176),
        ("q6_k", 256, 210),
        ("iq4_nl", 32, 18),
    ];
    assert_eq!(sizes, expected);
    for kind in BlockType::ALL {
        assert_eq!(BlockType::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(BlockType::parse("q4_2"), None);
}

#[test]
#[should_panic(expected = "19 bytes of q4_0 are no 32 elements")]
fn blocks_are_whole() {
    unpack(BlockType::Q4_0, &[0; 19], &mut [0.0; 32]);
}

/// A random matrix of `elements` in blocks of `kind`: any codes, and scales of usual size and either sign.
pub(crate) fn drawn(kind: BlockType, elements: usize, seed: u32) -> Vec<u8> {
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

/// The elements of such a matrix.
pub(crate) fn unpacked(kind: BlockType, blocks: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; kind.count_elements(blocks.len())];
    unpack(kind, blocks, &mut out);
    out
}

#[test]
fn any_part_of_a_matrix_is_unpacked() {
    for kind in BlockType::EVERY {
        let elements = 300 * kind.elements();
        let blocks = drawn(kind, elements, 3);
        let all = unpacked(kind, &blocks);
        assert_eq!(all.len(), elements);
        for at in Level::ALL.iter().filter(|at| **at <= level()) {
            for (from, count) in [(0, 1), (5, 40), (31, 2), (32, 64), (63, 129), (elements - 70, 70), (17, 0)]
            {
                let mut out = vec![7.0; count + 1];
                // SAFETY: the process's level is at least this one.
                unsafe { kind.unpacking(*at)(blocks.as_ptr(), from, count, out.as_mut_ptr()) };
                assert_same(kind, &out[..count], &all[from..from + count]);
                assert_eq!(out[count], 7.0, "{kind} writes past its end");
            }
        }
    }
}

/// Unpacks nf4 from its layout alone, group by group.
fn nf4_by_groups(bytes: &[u8]) -> Vec<f32> {
    let float = |at: &[u8]| f32::from_le_bytes(at[..4].try_into().unwrap());
    let of_group = |group: &[u8]| -> Vec<f32> {
        let (step, mean) = (float(group), float(&group[4..]));
        let of_block = |block: &[u8]| -> Vec<f32> {
            let scale = nf4::e4m3(block[0]) * step + mean;
            let value = |code: u8| nf4::TABLE[code as usize] * scale;
            let of_32 = |codes: &[u8]| {
                [
                    codes.iter().map(|c| value(c & 15)).collect::<Vec<_>>(),
                    codes.iter().map(|c| value(c >> 4)).collect(),
                ]
                .concat()
            };
            block[1..].chunks(16).flat_map(of_32).collect()
        };
        group[nf4::HEAD..].chunks_exact(nf4::BYTES).flat_map(of_block).collect()
    };
    bytes.chunks(nf4::HEAD + nf4::GROUP * nf4::BYTES).flat_map(of_group).collect()
}

#[test]
fn nf4_of_several_groups() {
    let blocks = drawn(BlockType::Nf4, 64 * 600, 7);
    assert_same(BlockType::Nf4, &unpacked(BlockType::Nf4, &blocks), &nf4_by_groups(&blocks));
}
