//! Tests of unpacking; `packed` tests quantisation.

mod packed;

use std::collections::HashMap;

use safetensors::SafeTensors;

use super::*;
use crate::simd::{Level, level};
use crate::testing::{draw_blocks, unpack_all};

/// The bytes of a file of goldens, `test/parity/goldens/{name}.safetensors`.
fn read_goldens(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/parity/goldens");
    std::fs::read(format!("{folder}/{name}.safetensors")).unwrap()
}

/// Blocks of each type, unpacked by ggml's reference in Python: `test/parity/gguf_blocks.py`.
fn read_block_goldens() -> HashMap<BlockType, (Vec<u8>, Vec<f32>)> {
    let bytes = read_goldens("gguf_blocks");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let read = |name: String| file.tensor(&name).unwrap().data().to_vec();
    BlockType::ALL
        .into_iter()
        .map(|kind| {
            let values = read(format!("{kind}.values"));
            let values = values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
            (kind, (read(format!("{kind}.blocks")), values))
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
fn unpacked_blocks_have_the_bits_of_the_reference() {
    for (kind, (blocks, expected)) in read_block_goldens() {
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
    for (kind, (blocks, expected)) in read_block_goldens() {
        for at in Level::ALL.iter().filter(|at| **at <= level()) {
            let mut out = vec![0.0; expected.len()];
            // SAFETY: the process's level is at least this one.
            unsafe { kind.select_unpack(*at)(blocks.as_ptr(), 0, out.len(), out.as_mut_ptr()) };
            assert_same(kind, &out, &expected);
        }
    }
}

#[test]
fn every_f16_is_widened_like_the_half_crate() {
    for bits in 0..=u16::MAX {
        let (got, expected) = (widen_f16(bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
        assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{bits:#06x}");
    }
}

#[test]
fn block_types_have_the_sizes_and_names_of_ggml() {
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
fn unpacking_a_partial_block_panics() {
    unpack(BlockType::Q4_0, &[0; 19], &mut [0.0; 32]);
}

#[test]
fn any_range_of_a_matrix_can_be_unpacked() {
    for kind in BlockType::EVERY {
        let elements = 300 * kind.elements();
        let blocks = draw_blocks(kind, elements, 3);
        let all = unpack_all(kind, &blocks);
        assert_eq!(all.len(), elements);
        for at in Level::ALL.iter().filter(|at| **at <= level()) {
            for (from, count) in [(0, 1), (5, 40), (31, 2), (32, 64), (63, 129), (elements - 70, 70), (17, 0)]
            {
                let mut out = vec![7.0; count + 1];
                // SAFETY: the process's level is at least this one.
                unsafe { kind.select_unpack(*at)(blocks.as_ptr(), from, count, out.as_mut_ptr()) };
                assert_same(kind, &out[..count], &all[from..from + count]);
                assert_eq!(out[count], 7.0, "{kind} writes past its end");
            }
        }
    }
}

/// Unpacks nf4 from its layout alone, group by group.
fn unpack_nf4_by_groups(bytes: &[u8]) -> Vec<f32> {
    let float = |at: &[u8]| f32::from_le_bytes(at[..4].try_into().unwrap());
    let unpack_group = |group: &[u8]| -> Vec<f32> {
        let (step, mean) = (float(group), float(&group[4..]));
        let unpack_block = |block: &[u8]| -> Vec<f32> {
            let scale = nf4::decode_e4m3(block[0]) * step + mean;
            let value = |code: u8| nf4::TABLE[code as usize] * scale;
            let unpack_32 = |codes: &[u8]| {
                [
                    codes.iter().map(|c| value(c & 15)).collect::<Vec<_>>(),
                    codes.iter().map(|c| value(c >> 4)).collect(),
                ]
                .concat()
            };
            block[1..].chunks(16).flat_map(unpack_32).collect()
        };
        group[nf4::HEAD..].chunks_exact(nf4::BYTES).flat_map(unpack_block).collect()
    };
    bytes.chunks(nf4::HEAD + nf4::GROUP * nf4::BYTES).flat_map(unpack_group).collect()
}

#[test]
fn nf4_with_several_groups_equals_the_reference() {
    let blocks = draw_blocks(BlockType::Nf4, 64 * 600, 7);
    assert_same(BlockType::Nf4, &unpack_all(BlockType::Nf4, &blocks), &unpack_nf4_by_groups(&blocks));
}
