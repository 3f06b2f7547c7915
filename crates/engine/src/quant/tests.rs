use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::format::safetensors::Reader;
use crate::simd::{Level, level};

/// Blocks of each format, and what ggml's reference in Python makes of them: `test/parity/gguf_blocks.py`.
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

/// The same bits, and of what is no number that it is none.
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
        // From any address, one by one.
        let shifted = [&[0], &blocks[..]].concat();
        for (i, expected) in expected.chunks(kind.elements()).enumerate() {
            let mut out = vec![0.0; kind.elements()];
            unpack(kind, &shifted[1 + i * kind.bytes()..][..kind.bytes()], &mut out);
            assert_same(kind, &out, expected);
        }
    }
}

/// Instructions that fuse, or that flush what is subnormal, would give other bits.
#[test]
fn every_instruction_set_gives_the_same_bits() {
    crate::simd::compiled! {
        exact fn one [B: Block](blocks: &[u8], out: &mut [f32]) {
            let blocks: &[B] = bytemuck::cast_slice(blocks);
            for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::ELEMENTS)) {
                block.unpack(out);
            }
        }
    }
    for (kind, (blocks, expected)) in golden() {
        for at in Level::ALL.into_iter().filter(|at| **at <= level()) {
            let mut out = vec![0.0; expected.len()];
            // SAFETY: the process's level is at least this one.
            unsafe { of_layout!(kind, one(*at))(&blocks, &mut out) };
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
