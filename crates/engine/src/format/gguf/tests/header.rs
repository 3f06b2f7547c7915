use std::path::Path;

use lowrank_cpu::quant::BlockType;

use super::super::cursor::Cursor;
use super::super::header::Header;
use super::super::metadata::{self, MetaValue};
use super::super::tensors::{Entry, TensorType};
use super::written::{
    TensorSpec, encode_file, encode_meta_list, encode_meta_text, encode_meta_u32, encode_text,
};
use crate::dtype::DType;
use crate::shape::Shape;

const F32: u32 = 0;
const Q4_0: u32 = 2;

fn make_tensor<'a>(name: &'a str, dims: &'a [u64], kind: u32, offset: u64) -> TensorSpec<'a> {
    TensorSpec { name, dims, kind, offset }
}

/// Requires an error at that byte, in one line that contains `what`.
fn expect_refusal(bytes: &[u8], offset: usize, what: &str) {
    let fault = Header::parse(bytes).expect_err("a refusal");
    assert!(fault.what.contains(what), "{} does not contain: {what}", fault.what);
    assert_eq!(fault.offset, offset, "{}", fault.what);
    assert_eq!(fault.what.lines().count(), 1, "{}", fault.what);
}

fn read_entries(bytes: &[u8]) -> Vec<Entry> {
    let header = Header::parse(bytes).unwrap();
    let mut cursor = Cursor::new(bytes, header.first_tensor);
    (0..header.tensors.len()).map(|_| header.data.read_entry(&mut cursor).unwrap()).collect()
}

/// A value with its type, as text.
fn read_value(bytes: &[u8], key: &str) -> String {
    let at = Header::parse(bytes).unwrap().find_value(bytes, key).unwrap().unwrap();
    format_value(metadata::read(Path::new("x"), at).unwrap())
}

fn format_value(value: MetaValue) -> String {
    let MetaValue::List(list) = value else { return format!("{value:?}") };
    let (stated, mut values) = (list.len(), Vec::new());
    values.extend(list.map(|value| format_value(value.unwrap())));
    assert_eq!(values.len(), stated);
    format!("[{}]", values.join(", "))
}

#[test]
fn a_valid_header_is_parsed() {
    let numbers = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
    let texts = [encode_text("a"), encode_text("ü")].concat();
    let lists = [encode_meta_list(0, 2, &[7, 8]), encode_meta_list(2, 0, &[]), encode_meta_list(0, 1, &[9])];
    let lists: Vec<u8> = lists.iter().flat_map(|list| &list[4..]).copied().collect();
    let keys = [
        ("general.alignment", encode_meta_u32(64)),
        ("t", encode_meta_text("x\ny")),
        ("f", encode_meta_list(6, 2, &numbers)),
        ("s", encode_meta_list(8, 2, &texts)),
        ("n", encode_meta_list(9, 3, &lists)),
        ("b", [&7u32.to_le_bytes()[..], &[1]].concat()),
        ("i", [&11u32.to_le_bytes()[..], &i64::MIN.to_le_bytes()].concat()),
        ("h", [&3u32.to_le_bytes()[..], &(-3i16).to_le_bytes()].concat()),
    ];
    let tensors = [
        make_tensor("b", &[3, 2], F32, 64),
        make_tensor("a", &[32, 1], Q4_0, 0),
        make_tensor("scalar", &[], F32, 128),
        make_tensor("empty", &[0, 4], F32, 128),
    ];
    let bytes = encode_file(&keys, &tensors, 64, &[0; 132]);
    let listed = read_entries(&bytes);
    let start = bytes.len() as u64 - 132;
    let of = |i: usize| {
        let e = &listed[i];
        (e.name.as_str(), e.kind, e.shape.clone(), e.offset - start, e.bytes)
    };
    assert_eq!(of(0), ("b", TensorType::Plain(DType::F32), Shape::new(&[2, 3]), 64, 24));
    assert_eq!(of(1), ("a", TensorType::Blocks(BlockType::Q4_0), Shape::new(&[1, 32]), 0, 18));
    assert_eq!(of(2), ("scalar", TensorType::Plain(DType::F32), Shape::new(&[]), 128, 4));
    assert_eq!(of(3), ("empty", TensorType::Plain(DType::F32), Shape::new(&[4, 0]), 128, 0));
    for (key, expected) in [
        ("general.alignment", "Unsigned(64)"),
        ("t", r#"Text("x\ny")"#),
        ("f", "[Float(1.5), Float(-2.0)]"),
        ("s", r#"[Text("a"), Text("ü")]"#),
        ("n", "[[Unsigned(7), Unsigned(8)], [], [Unsigned(9)]]"),
        ("b", "Bool(true)"),
        ("i", "Signed(-9223372036854775808)"),
        ("h", "Signed(-3)"),
    ] {
        assert_eq!(read_value(&bytes, key), expected);
    }
    let header = Header::parse(&bytes).unwrap();
    for entry in &listed {
        assert_eq!(header.find_entry(&bytes, &entry.name).unwrap().as_ref(), Some(entry));
    }
    assert_eq!(header.find_entry(&bytes, "c").unwrap(), None);
    assert!(header.find_value(&bytes, "a").unwrap().is_none());
    let keys: Vec<&str> = (0..header.keys.len()).map(|i| header.keys.read(&bytes, i).unwrap()).collect();
    assert_eq!(keys, ["b", "f", "general.alignment", "h", "i", "n", "s", "t"]);
    let mut second = bytes.clone();
    second[4] = 2;
    assert_eq!(read_entries(&second), listed);
}

#[test]
fn a_truncated_file_is_refused() {
    let keys = [("a", encode_meta_text("text")), ("l", encode_meta_list(4, 2, &[0; 8]))];
    let whole =
        encode_file(&keys, &[make_tensor("x", &[4], F32, 0), make_tensor("y", &[2], F32, 32)], 32, &[0; 40]);
    assert_eq!(read_entries(&whole).len(), 2);
    for n in 0..whole.len() {
        let fault = Header::parse(&whole[..n]).expect_err("a refusal");
        assert!(fault.offset <= n && !fault.what.is_empty());
    }
    expect_refusal(&[], 0, "cut off: the beginning \"GGUF\" of 4 bytes was expected, 0 are there");
    expect_refusal(&whole[..6], 4, "cut off: the version of 4 bytes was expected, 2 are there");
    let end = whole.len() - 1;
    let fault = Header::parse(&whole[..end]).unwrap_err();
    assert!(fault.what.contains("tensor \"y\": its 8 bytes from"), "{}", fault.what);
    assert!(fault.what.contains(&format!("pass the file's end at {end}: cut off?")), "{}", fault.what);
}

#[test]
fn other_file_formats_are_refused() {
    expect_refusal(b"version https://git-lfs.github.com/spec/v1\n", 0, "Git LFS pointer");
    expect_refusal(b"<!DOCTYPE html>", 0, "markup");
    expect_refusal(b"ggjt\x01\0\0\0", 0, "older format");
    expect_refusal(b"PK\x03\x04 and so on", 0, "begins with \"GGUF\", not \"PK");
    expect_refusal(b"GGUF\x01\0\0\0", 4, "version 2 or 3 was expected, this is 1; convert the model again");
    expect_refusal(b"GGUF\x04\0\0\0", 4, "this is 4, which is newer");
    expect_refusal(b"GGUF\0\0\0\x03", 4, "big-endian");
}

#[test]
fn impossible_counts_are_refused() {
    let mut bytes =
        encode_file(&[("k", encode_meta_u32(1))], &[make_tensor("x", &[4], F32, 0)], 32, &[0; 16]);
    let huge = (1u64 << 60).to_le_bytes();
    let with = |at: usize, value: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + value.len()].copy_from_slice(value);
        changed
    };
    expect_refusal(
        &with(8, &huge),
        8,
        "the number of tensors says 1152921504606846976, and the rest of the file has room for",
    );
    expect_refusal(&with(16, &huge), 16, "the number of metadata keys says 1152921504606846976");
    expect_refusal(&with(24, &huge), 24, "the length of a metadata key says 1152921504606846976");
    expect_refusal(&with(24, &u64::MAX.to_le_bytes()), 24, "18446744073709551615");
    // As many tensors as the file could hold without anything else.
    let most = (bytes.len() as u64 - 16) / 24;
    expect_refusal(&with(8, &most.to_le_bytes()), 8, "has no room for these");
    bytes = encode_file(&[("list", encode_meta_list(8, 1 << 60, &[]))], &[], 32, &[]);
    expect_refusal(&bytes, 24 + 12 + 8, "\"list\": the length of a list says 1152921504606846976");
    bytes = encode_file(&[("list", encode_meta_list(10, 1 << 61, &[]))], &[], 32, &[]);
    expect_refusal(&bytes, 24 + 12 + 8, "the length of a list says 2305843009213693952");
    bytes = encode_file(&[("k", encode_meta_text("x"))], &[], 32, &[]);
    bytes[37..45].copy_from_slice(&99u64.to_le_bytes());
    expect_refusal(&bytes, 37, "\"k\": the length of a text says 99, and the rest of the file has room for");
}

#[test]
fn invalid_keys_and_values_are_refused() {
    let one = || ("k", encode_meta_u32(1));
    expect_refusal(&encode_file(&[one(), one()], &[], 32, &[]), 24 + 17, "duplicate key \"k\"");
    // The first duplicate is reported, before errors after it, including its own value's.
    let other = || ("a", encode_meta_u32(1));
    let wrong = || ("k", vec![13, 0, 0, 0]);
    let twice = [one(), other(), one(), other(), one()];
    expect_refusal(&encode_file(&twice, &[], 32, &[]), 24 + 2 * 17, "duplicate key \"k\"");
    expect_refusal(
        &encode_file(&[one(), other(), wrong()], &[], 32, &[]),
        24 + 2 * 17,
        "duplicate key \"k\"",
    );
    expect_refusal(
        &encode_file(&[one(), one(), ("b", vec![13, 0, 0, 0])], &[], 32, &[]),
        24 + 17,
        "duplicate",
    );
    expect_refusal(
        &encode_file(&[("b", vec![13, 0, 0, 0]), one(), one()], &[], 32, &[]),
        24 + 9,
        "\"b\": a value's type",
    );
    let value = |bytes: &[u8]| encode_file(&[("k", bytes.to_vec())], &[], 32, &[0; 64]);
    expect_refusal(
        &value(&13u32.to_le_bytes()),
        33,
        "\"k\": a value's type from 0 to 12 was expected, this is 13",
    );
    expect_refusal(&value(&[7, 0, 0, 0, 2]), 37, "a truth value of 0 or 1 was expected, this is 2");
    expect_refusal(
        &value(&[&8u32.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]].concat()),
        45,
        "is not UTF-8",
    );
    let mut unnamed = value(&encode_meta_u32(1));
    unnamed[24 + 8] = 0xff;
    expect_refusal(&unnamed, 24 + 8, "a metadata key is not UTF-8");
    let deep = |lists: usize| {
        let inner = [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].repeat(lists - 1);
        [&9u32.to_le_bytes()[..], &inner, &[0; 12]].concat()
    };
    assert!(Header::parse(&value(&deep(4))).is_ok());
    expect_refusal(&value(&deep(5)), 37 + 4 * 12, "lists may be nested at most 4 deep");
    expect_refusal(&value(&deep(1000)), 37 + 4 * 12, "lists may be nested at most 4 deep");
    // Also for a file that was modified since.
    let deep = deep(5);
    let Ok(MetaValue::List(mut list)) = metadata::read(Path::new("x"), Cursor::new(&deep, 0)) else {
        panic!("a list was expected");
    };
    let error = list.next().unwrap().unwrap_err();
    assert_eq!(error.message, "x: at byte 52: lists may be nested at most 4 deep");
    let alignment = |value: Vec<u8>| encode_file(&[("general.alignment", value)], &[], 32, &[]);
    expect_refusal(
        &alignment(encode_meta_u32(0)),
        49,
        "general.alignment: a power of two was expected, this is 0",
    );
    expect_refusal(&alignment(encode_meta_u32(48)), 49, "a power of two was expected, this is 48");
    expect_refusal(&alignment(encode_meta_text("32")), 49, "this is of another type");
}

#[test]
fn invalid_tensors_are_refused() {
    let of = |tensors: &[TensorSpec]| encode_file(&[], tensors, 32, &[0; 256]);
    let x = |dims, kind, offset| of(&[make_tensor("x", dims, kind, offset)]);
    let header = 24;
    let (rank, dims) = (header + 9, header + 13);
    expect_refusal(
        &x(&[1; 5], F32, 0),
        rank,
        "tensor \"x\": at most 4 dimensions were expected, this says 5",
    );
    expect_refusal(&x(&[1 << 32, 1 << 32], F32, 0), dims, "overflows");
    expect_refusal(&x(&[1 << 62, 0, 4], F32, 0), dims, "overflows");
    expect_refusal(&x(&[1 << 61], F32, 0), dims, "overflows");
    expect_refusal(
        &x(&[33, 2], Q4_0, 0),
        dims,
        "rows of whole blocks of 32 were expected for q4_0, these have 33",
    );
    expect_refusal(
        &x(&[32], 12, 0),
        dims,
        "rows of whole blocks of 256 were expected for q4_k, these have 32",
    );
    expect_refusal(&x(&[32], 23, 0), dims + 8, "type 23 (IQ4_XS) is not read; those that are: F32, F16");
    expect_refusal(&x(&[32], 5, 0), dims + 8, "no longer in use");
    expect_refusal(&x(&[32], 99, 0), dims + 8, "type 99 is unknown");
    expect_refusal(&x(&[4], F32, 16), header, "an offset that is a multiple of 32 was expected, this is 16");
    expect_refusal(&x(&[4], F32, u64::MAX - 31), header, "pass the file's end");
    expect_refusal(
        &x(&[4], F32, 256),
        header,
        "tensor \"x\": its 16 bytes from 64 + 256 on pass the file's end at 320: cut off?",
    );
    expect_refusal(&x(&[1 << 30], F32, 0), header, "pass the file's end");
    // Also without elements.
    expect_refusal(
        &x(&[0], F32, 1 << 40),
        header,
        "its 0 bytes from 64 + 1099511627776 on pass the file's end",
    );
    let two = |b| of(&[make_tensor("a", &[16], F32, 0), b]);
    let second = header + 9 + 4 + 8 + 12;
    expect_refusal(&two(make_tensor("a", &[4], F32, 64)), second, "duplicate tensor \"a\"");
    // The first duplicate is reported: before errors after it, but not before an error in the duplicate itself.
    let same = |offset| make_tensor("x", &[4], F32, offset);
    let third = second + 9 + 4 + 8 + 12;
    let five =
        [make_tensor("b", &[4], F32, 0), same(32), same(64), make_tensor("b", &[4], F32, 96), same(128)];
    expect_refusal(&of(&five), third, "duplicate tensor \"x\"");
    expect_refusal(
        &of(&[same(0), same(32), make_tensor("b", &[4], 99, 64)]),
        second,
        "duplicate tensor \"x\"",
    );
    expect_refusal(
        &of(&[same(0), make_tensor("x", &[4], 99, 32)]),
        second + 9 + 4 + 8,
        "tensor \"x\": type 99 is unknown",
    );
    expect_refusal(&of(&[same(16), same(32)]), second, "duplicate tensor \"x\"");
    expect_refusal(
        &two(make_tensor("b", &[4], F32, 32)),
        second,
        "its offset 32 lies in the tensor \"a\", which ends at 64",
    );
    expect_refusal(
        &two(make_tensor("b", &[4], F32, 0)),
        header,
        "tensor \"a\": its offset 0 lies in the tensor \"b\"",
    );
    // A tensor without elements overlaps nothing.
    let within =
        [make_tensor("a", &[16], F32, 0), make_tensor("b", &[0], F32, 32), make_tensor("c", &[4], F32, 64)];
    assert_eq!(read_entries(&of(&within)).len(), 3);
    expect_refusal(
        &of(&[
            make_tensor("a", &[32], F32, 0),
            make_tensor("b", &[0], F32, 32),
            make_tensor("c", &[4], F32, 64),
        ]),
        header + 2 * (9 + 4 + 8 + 12),
        "tensor \"c\": its offset 64 lies in the tensor \"a\", which ends at 128",
    );
    let mut unnamed = x(&[4], F32, 0);
    unnamed[header + 8] = 0xff;
    expect_refusal(&unnamed, header + 8, "a tensor's name is not UTF-8");
    // Gaps between tensors are allowed.
    assert_eq!(read_entries(&two(make_tensor("b", &[4], F32, 128))).len(), 2);
}
