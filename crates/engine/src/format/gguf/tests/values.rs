use std::path::Path;

use lowrank_cpu::quant::BlockType;

use super::super::{Reader, RowOrder};
use super::written::{TensorSpec, encode_file, encode_meta_u32};
use crate::dtype::DType;
use crate::error::Code;
use crate::format::safetensors;
use crate::format::test_folder::TestFolder;
use crate::mapped_file;
use crate::ops::checks::{contexts, read};

/// Blocks of a type with finite values, unpacked by gguf-py.
fn read_block_goldens(kind: BlockType) -> (Vec<u8>, Vec<f32>) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/parity/goldens/gguf_blocks.safetensors");
    let golden = safetensors::Reader::open(path).unwrap();
    let read =
        |what: &str| golden.read(golden.entry(&format!("{kind}.{what}")).unwrap(), <[u8]>::to_vec).unwrap();
    let (blocks, values) = (read("blocks"), read("values"));
    let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect();
    // The last two are random, with small scales.
    let (blocks, values) =
        (&blocks[blocks.len() - 2 * kind.bytes()..], &values[values.len() - 2 * kind.elements()..]);
    (blocks.to_vec(), values.to_vec())
}

#[test]
fn blocks_are_unpacked_on_every_device() {
    let kinds = [2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20];
    let folder = TestFolder::new();
    for (kind, number) in BlockType::ALL.into_iter().zip(kinds) {
        let (blocks, values) = read_block_goldens(kind);
        let dims = [kind.elements() as u64, 2];
        let tensors = [TensorSpec { name: "w", dims: &dims, kind: number, offset: 0 }];
        let reader = Reader::open(folder.file("w.gguf", encode_file(&[], &tensors, 32, &blocks))).unwrap();
        assert_eq!(reader.read(&reader.entry("w").unwrap(), <[u8]>::to_vec).unwrap(), blocks);
        for cx in contexts() {
            let value = reader.value(&cx, "w", None, RowOrder::Stored).unwrap();
            assert_eq!((value.dtype, &*value.shape), (DType::F32, &[2, kind.elements()][..]));
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let got: Vec<f32> = read(&value).data.iter().map(|v| *v as f32).collect();
            assert_eq!(bits(&got), bits(&values), "{kind}");
            let half = reader.value(&cx, "w", Some(DType::BF16), RowOrder::Stored).unwrap();
            let got: Vec<f32> = read(&half).data.iter().map(|v| *v as f32).collect();
            let rounded: Vec<f32> = values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect();
            assert_eq!(bits(&got), bits(&rounded), "{kind} as bf16");
        }
    }
}

#[test]
fn rows_of_heads_are_reordered_to_halves() {
    // Two heads of four rows: row 10·h + r holds its number, and the file has rows 0, 2, 1, 3 of each.
    let rows = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0f32];
    let data: Vec<u8> = rows.iter().flat_map(|row| [*row, row + 0.5]).flat_map(f32::to_le_bytes).collect();
    let bias: Vec<u8> = rows.iter().copied().flat_map(f32::to_le_bytes).collect();
    let folder = TestFolder::new();
    let tensors = [
        TensorSpec { name: "w", dims: &[2, 8], kind: 0, offset: 0 },
        TensorSpec { name: "b", dims: &[8], kind: 0, offset: 64 },
    ];
    let path = folder.file("w.gguf", encode_file(&[], &tensors, 32, &[data, bias].concat()));
    let reader = Reader::open(path).unwrap();
    let halves = RowOrder::Halves { heads: 2 };
    let expected = [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0];
    for cx in contexts() {
        let w = read(&reader.value(&cx, "w", None, halves).unwrap()).data;
        assert_eq!(w, expected.iter().flat_map(|row| [*row, row + 0.5]).collect::<Vec<f64>>());
        assert_eq!(read(&reader.value(&cx, "b", None, halves).unwrap()).data, expected);
        assert_eq!(read(&reader.value(&cx, "b", None, RowOrder::Stored).unwrap()).data[1], 2.0);
        let refused = |heads| reader.value(&cx, "w", None, RowOrder::Halves { heads }).unwrap_err();
        for heads in [0, 3, 8] {
            assert_eq!(refused(heads).code, Code::ShapeMismatch);
        }
        let missing = reader.value(&cx, "x", None, halves).unwrap_err();
        assert_eq!(missing.code, Code::FileFormat);
        assert!(missing.message.ends_with("w.gguf: there is no tensor \"x\""), "{missing}");
        let whole = reader.value(&cx, "w", Some(DType::I32), halves).unwrap_err();
        assert_eq!(whole.code, Code::Dtype);
    }
}

#[test]
fn rows_of_blocks_are_reordered_and_stay_blocks() {
    let folder = TestFolder::new();
    // A head of four rows, of two blocks each: every byte of a row is its number.
    let block = BlockType::Q8_0.bytes();
    let data: Vec<u8> = [0u8, 2, 1, 3].iter().flat_map(|row| vec![*row; 2 * block]).collect();
    let tensors = [TensorSpec { name: "w", dims: &[64, 4], kind: 8, offset: 0 }];
    let reader = Reader::open(folder.file("w.gguf", encode_file(&[], &tensors, 32, &data))).unwrap();
    let dtype = DType::Block(BlockType::Q8_0);
    for cx in contexts() {
        let value = reader.value(&cx, "w", Some(dtype), RowOrder::Halves { heads: 1 }).unwrap();
        assert_eq!((value.dtype, &*value.shape), (dtype, &[4, 64][..]));
        let unpacked = reader.value(&cx, "w", None, RowOrder::Halves { heads: 1 }).unwrap();
        assert_eq!((unpacked.dtype, &*unpacked.shape), (DType::F32, &[4, 64][..]));
        let rows: Vec<u8> = (0..4u8).flat_map(|row| vec![row; 2 * block]).collect();
        let mut expected = [0f32; 256];
        lowrank_cpu::quant::unpack(BlockType::Q8_0, &rows, &mut expected);
        let bits = |values: &[f64]| values.iter().map(|v| (*v as f32).to_bits()).collect::<Vec<_>>();
        let expected: Vec<f64> = expected.iter().map(|v| f64::from(*v)).collect();
        assert_eq!(bits(&read(&unpacked).data), bits(&expected));
    }
}

#[test]
fn f16_tensors_are_mapped_or_converted() {
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let folder = TestFolder::new();
    let tensors = [TensorSpec { name: "w", dims: &[2], kind: 1, offset: 0 }];
    let reader = Reader::open(folder.file("w.gguf", encode_file(&[], &tensors, 32, &data))).unwrap();
    for cx in contexts() {
        for dtype in [DType::F32, DType::BF16] {
            let value = reader.value(&cx, "w", Some(dtype), RowOrder::Stored).unwrap();
            assert_eq!((value.dtype, read(&value).data), (dtype, vec![1.5, -2.0]));
        }
    }
    // The CPU copies nothing.
    let cx = &contexts()[0];
    assert_eq!(read(&reader.value(cx, "w", None, RowOrder::Stored).unwrap()).data, [1.5, -2.0]);
}

#[test]
fn reading_a_released_file_is_refused() {
    let folder = TestFolder::new();
    let tensors = [TensorSpec { name: "w", dims: &[1], kind: 0, offset: 0 }];
    let reader =
        Reader::open(folder.file("w.gguf", encode_file(&[("k", encode_meta_u32(1))], &tensors, 32, &[0; 4])))
            .unwrap();
    let entry = reader.entry("w").unwrap();
    assert_eq!(mapped_file::release(reader.path()).unwrap(), 1);
    for error in [
        reader.entries().next().unwrap().unwrap_err(),
        reader.entry("w").unwrap_err(),
        reader.keys().next().unwrap().unwrap_err(),
        reader.read_metadata("k", |_| Ok(())).unwrap_err(),
        reader.find_range("k").unwrap_err(),
        reader.read(&entry, |_| ()).unwrap_err(),
    ] {
        assert_eq!(error.code, Code::FileNotFound, "{error}");
        assert!(error.message.ends_with("after it was opened; open it again"), "{error}");
    }
}

/// Files modified while they are mapped, which our writers never do: errors, not panics.
#[cfg(target_os = "linux")]
#[test]
fn a_file_modified_while_mapped_gives_errors() {
    use std::os::unix::fs::FileExt;

    use super::written::{encode_meta_list, encode_text};
    use crate::error::Result;

    let folder = TestFolder::new();
    let tensors = [TensorSpec { name: "w", dims: &[1], kind: 0, offset: 0 }];
    let keys = [("k", encode_meta_list(8, 2, &[encode_text("a"), encode_text("b")].concat()))];
    let whole = encode_file(&keys, &tensors, 32, &[0; 4]);
    let (key, list, tensor) = (24, 24 + 9, 24 + 9 + 4 + 4 + 8 + 18);
    let (highest, beyond) = (u32::MAX, 1u32 << 31);
    let wrong = [
        (key, highest, key, "the length of a name says"),
        (list, highest, list, "a value's type from 0 to 12"),
        (list + 4 + 4 + 8, highest, list + 4 + 4 + 8, "the length of a text says"),
        (tensor, highest, tensor, "the length of a tensor's name says"),
        (tensor + 9, highest, tensor + 9, "at most 4 dimensions"),
        (tensor + 9 + 4 + 8, highest, tensor + 9 + 4 + 8, "type 4294967295 is unknown"),
        (tensor + 9 + 4 + 8 + 4, beyond, tensor, "pass the file's end"),
    ];
    for (to, word, at, what) in wrong {
        let path = folder.file("w.gguf", &whole);
        let reader = Reader::open(&path).unwrap();
        let written = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        written.write_all_at(&word.to_le_bytes(), to as u64).unwrap();
        let texts =
            || reader.read_texts("k", |texts| texts.map(|text| Ok(text?.len())).collect::<Result<Vec<_>>>());
        let outcomes = [
            reader.entries().collect::<Result<Vec<_>>>().err(),
            reader.entry("w").err(),
            reader.keys().collect::<Result<Vec<_>>>().err(),
            texts().err(),
        ];
        let errors: Vec<String> = outcomes.into_iter().flatten().map(|error| error.message).collect();
        let names_the_fault =
            |error: &String| error.contains(&format!("w.gguf: at byte {at}: ")) && error.contains(what);
        assert!(errors.iter().any(names_the_fault), "{errors:?} do not contain: {what}");
    }
}
