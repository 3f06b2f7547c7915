use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::header::{self, MAX_HEADER, PREFIX};
use super::*;
use crate::error::{Code, Error};
use crate::format::test_folder::TestFolder;
use crate::ops::checks::{Array, contexts, read};
use crate::shape::Shape;

/// A file with this header text and `data` bytes of data.
fn make_file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn open_invalid(bytes: &[u8]) -> Error {
    let folder = TestFolder::new();
    Reader::open(folder.file("bad.safetensors", bytes)).expect_err("a refusal")
}

/// Requires ERR_FILE_FORMAT, in one line with the file, the byte, and `what`.
fn expect_refusal(bytes: &[u8], offset: usize, what: &str) {
    let error = open_invalid(bytes);
    assert_eq!(error.code, Code::FileFormat, "{error}");
    let place = format!("bad.safetensors: at byte {offset}: ");
    assert!(error.message.contains(&place), "{error} is not at byte {offset}");
    assert!(error.message.contains(what), "{error} does not contain: {what}");
    assert_eq!(error.message.lines().count(), 1, "{error}");
}

fn list_golden_files() -> Vec<PathBuf> {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/parity/goldens");
    let mut folders = vec![goldens];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "safetensors") {
                files.push(path);
            }
        }
    }
    files
}

fn read_stored(reader: &Reader, entry: &Entry) -> Vec<u8> {
    reader.read(entry, <[u8]>::to_vec).unwrap()
}

#[test]
fn files_from_python_round_trip_byte_for_byte() {
    let files = list_golden_files();
    assert!(files.len() >= 10, "golden files are missing: {files:?}");
    let folder = TestFolder::new();
    for path in files {
        let reader = Reader::open(&path).unwrap();
        let bytes: Vec<Vec<u8>> = reader.entries().iter().map(|entry| read_stored(&reader, entry)).collect();
        let entries = reader.entries().iter().zip(&bytes);
        let parts: Vec<TensorData> = entries
            .rev()
            .map(|(e, bytes)| TensorData { name: &e.name, dtype: e.dtype, shape: &e.shape, bytes })
            .collect();
        let copy = folder.join("copy.safetensors");
        let metadata = Some(reader.metadata()).filter(|m| !m.is_empty());
        write(&copy, &parts, metadata).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&copy).unwrap(), "{}", path.display());
    }
    assert_eq!(folder.names(), ["copy.safetensors"]);
}

#[test]
fn the_reference_writes_the_same_bytes() {
    let names = ["b", "a", "Ω \"quoted\"\n", "a.b", "empty", "scalar"];
    let shapes: [&[usize]; 6] = [&[3, 2], &[5], &[1, 1, 7], &[64], &[0, 4], &[]];
    let dtypes = [Dtype::F16, Dtype::U8, Dtype::F32, Dtype::F64, Dtype::BF16, Dtype::I32];
    let data: Vec<Vec<u8>> = (0..6)
        .map(|i| vec![i as u8; shapes[i].iter().product::<usize>() * dtypes[i].bitsize() / 8])
        .collect();
    for metadata in [None, Some(BTreeMap::new()), Some(BTreeMap::from([("format".into(), "pt".into())]))] {
        let parts: Vec<TensorData> = (0..6)
            .map(|i| TensorData { name: names[i], dtype: dtypes[i], shape: shapes[i], bytes: &data[i] })
            .collect();
        let views = (0..6).map(|i| {
            let view = safetensors::tensor::TensorView::new(dtypes[i], shapes[i].to_vec(), &data[i]);
            (names[i], view.unwrap())
        });
        let reference: Option<HashMap<String, String>> = metadata.clone().map(|m| m.into_iter().collect());
        let reference = safetensors::serialize(views, reference).unwrap();
        let folder = TestFolder::new();
        let path = folder.join("x.safetensors");
        write(&path, &parts, metadata.as_ref()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), reference);
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.metadata(), &metadata.unwrap_or_default());
        assert_eq!(reader.entry("b").unwrap().shape, Shape::from([3, 2]));
        assert_eq!(read_stored(&reader, reader.entry("a.b").unwrap()), data[3]);
        assert!(reader.entry("c").is_none());
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let whole = make_file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
    expect_refusal(&[], 0, "cut off");
    expect_refusal(&whole[..5], 5, "cut off");
    expect_refusal(&whole[..20], 20, "cut off: a header of 54 bytes was expected, 12 are there");
    expect_refusal(&whole[..65], 9, "tensor \"a\": ends at byte 70 and the file at 65: cut off?");
    for n in 0..whole.len() {
        assert_eq!(open_invalid(&whole[..n]).code, Code::FileFormat);
    }
    let mut longer = whole.clone();
    longer.push(0);
    expect_refusal(&longer, 70, "the file's end was expected, 1 bytes follow");
}

#[test]
fn invalid_headers_are_refused() {
    let mut long = make_file("{}", 0);
    long[..PREFIX].copy_from_slice(&(MAX_HEADER + 1).to_le_bytes());
    expect_refusal(&long, 0, "a header of at most 100000000 bytes was expected, this says 100000001");
    long[..PREFIX].copy_from_slice(&u64::MAX.to_le_bytes());
    expect_refusal(&long, 0, "18446744073709551615");
    expect_refusal(b"version https://git-lfs.github.com/spec/v1\n", 0, "Git LFS pointer");
    expect_refusal(b"PK\x03\x04 and so on", 0, "PyTorch's own format");
    expect_refusal(&make_file("", 0), 8, "EOF");
    expect_refusal(&make_file("{\"a\":\n {\"b\": nonsense}}", 0), 22, "expected ident");
    expect_refusal(&make_file("[]", 0), 8, "expected an object of tensors by name");
    expect_refusal(&make_file("{} {}", 0), 11, "trailing");
    let mut bytes = make_file(r#"{"abc":{}}"#, 0);
    bytes[PREFIX + 3] = 0xff;
    expect_refusal(&bytes, PREFIX + 3, "not UTF-8");
    expect_refusal(&make_file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0), 13, "expected");
    expect_refusal(&make_file(r#"{"__metadata__":{"n":1}}"#, 0), 29, "expected a string");
    // A file without tensors is valid.
    let folder = TestFolder::new();
    assert_eq!(Reader::open(folder.file("a", make_file("{}", 0))).unwrap().names().count(), 0);
}

#[test]
fn duplicate_keys_are_refused() {
    let a = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    expect_refusal(&make_file(&format!("{{{a},{a}}}"), 1), 63, "duplicate key \"a\"");
    let m = r#""__metadata__":{}"#;
    expect_refusal(&make_file(&format!("{{{m},{m}}}"), 0), 40, "duplicate");
    expect_refusal(&make_file(r#"{"__metadata__":{"a":"","a":""}}"#, 0), 34, "duplicate key \"a\"");
    let twice = r#"{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    expect_refusal(&make_file(twice, 1), 33, "duplicate field `dtype`");
}

#[test]
fn tensors_that_contradict_their_file_are_refused() {
    let two = |first: &str, second: &str| format!(r#"{{"first":{first},"second":{second}}}"#);
    let u8s = |begin: u64, end: u64| {
        format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, end.saturating_sub(begin))
    };
    let second = 8 + two(&u8s(0, 4), "").find("\"second\"").unwrap();
    let expect_refusal_of_second = |begin, end, what: &str| {
        expect_refusal(
            &make_file(&two(&u8s(0, 4), &u8s(begin, end)), 8),
            second,
            &format!("tensor \"second\": {what}"),
        );
    };
    expect_refusal_of_second(5, 8, "offset 4 was expected, right after \"first\", this begins at 5");
    expect_refusal_of_second(3, 8, "offset 4 was expected, this begins at 3 and overlaps \"first\"");
    expect_refusal_of_second(4, 9, "ends at byte");
    expect_refusal_of_second(8, 4, "0 bytes were expected");
    expect_refusal_of_second(4, 1 << 40, "ends at byte 10995116279");
    expect_refusal_of_second(4, u64::MAX, "the size of U8 [18446744073709551611] overflows");
    let one = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}}}"#)
    };
    expect_refusal(
        &make_file(&one("U8", "[7]", 1, 8), 8),
        9,
        "offset 0 was expected, right after the header",
    );
    expect_refusal(
        &make_file(&one("F32", "[3]", 0, 8), 8),
        9,
        "12 bytes were expected for F32 [3], its offsets are [0, 8]",
    );
    expect_refusal(&make_file(&one("F31", "[2]", 0, 8), 8), 9, "unknown dtype \"F31\"");
    expect_refusal(&make_file(&one("F32", "[4294967296,4294967296]", 0, 8), 8), 9, "overflows");
    expect_refusal(&make_file(&one("U8", "[0,4294967296,4294967296]", 0, 0), 0), 9, "overflows");
    expect_refusal(&make_file(&one("F4", "[3]", 0, 1), 1), 9, "whole byte");
    expect_refusal(&make_file(&one("F32", "[-1]", 0, 8), 8), 38, "invalid value");
    expect_refusal(&make_file(&one("F32", "[1.5]", 0, 8), 8), 39, "invalid type");
    expect_refusal(&make_file(r#"{"a":{"dtype":"F32","shape":[2]}}"#, 8), 39, "missing field `data_offsets`");
    // A name from the file never breaks the error's line.
    let broken = one("F31", "[2]", 0, 8).replace("\"a\"", r#""a\nb""#);
    expect_refusal(&make_file(&broken, 8), 9, r#"tensor "a\nb": unknown dtype"#);
}

#[test]
fn missing_files_and_folders_are_refused() {
    let folder = TestFolder::new();
    let error = Reader::open(folder.join("none")).unwrap_err();
    assert_eq!(error.code, Code::FileNotFound);
    assert!(error.message.ends_with("none: there is no such file"), "{error}");
    let error = Reader::open(&*folder).unwrap_err();
    assert_eq!(error.code, Code::FileFormat);
    assert!(error.message.contains("this is a folder"), "{error}");
}

#[test]
fn values_are_read_in_place_or_converted() {
    let weight = Array::random("weight", &[257, 3]);
    let half = weight.stored(DType::F16);
    let bf16 = weight.stored(DType::BF16);
    let encode = |numbers: &[i64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let (fits, large) = (encode(&[-5, i32::MAX as i64]), encode(&[i32::MAX as i64 + 1]));
    let (f32s, f16s, bf16s) = (weight.bytes(), half.bytes(), bf16.bytes());
    let entry = |name, dtype, shape, bytes| TensorData { name, dtype, shape, bytes };
    let folder = TestFolder::new();
    let path = folder.join("x.safetensors");
    let parts = [
        entry("f32", Dtype::F32, &[257, 3], &f32s),
        entry("f16", Dtype::F16, &[257, 3], &f16s),
        entry("bf16", Dtype::BF16, &[257, 3], &bf16s),
        entry("fits", Dtype::I64, &[2], &fits),
        entry("large", Dtype::I64, &[1], &large),
        entry("f64", Dtype::F64, &[1], &large),
        entry("empty", Dtype::F32, &[0, 3], &[]),
    ];
    write(&path, &parts, None).unwrap();
    let reader = Reader::open(&path).unwrap();
    for cx in contexts() {
        let expect_values = |name: &str, dtype: Option<DType>, expected: &Array| {
            let value = reader.value(&cx, name, dtype).unwrap();
            assert_eq!(value.dtype, expected.dtype);
            assert_eq!(read(&value).data, expected.data, "{name} as {dtype:?}");
        };
        expect_values("f32", None, &weight);
        expect_values("f16", None, &half);
        expect_values("bf16", None, &bf16);
        expect_values("f16", Some(DType::F16), &half);
        expect_values("f32", Some(DType::F16), &half);
        expect_values("f32", Some(DType::BF16), &bf16);
        expect_values("f16", Some(DType::F32), &half.stored(DType::F32));
        expect_values("bf16", Some(DType::F16), &bf16.stored(DType::F16));
        let fits = reader.value(&cx, "fits", None).unwrap();
        assert_eq!(fits.host().as_deref(), Some(&[-5, i32::MAX][..]));
        assert_eq!(reader.value(&cx, "empty", None).unwrap().shape, Shape::from([0, 3]));
        let mapped = cx.memory().mapped;
        let value = reader.value(&cx, "f32", None).unwrap();
        let in_place = if cx.profile.maps_files { f32s.len() as u64 } else { 0 };
        assert_eq!(cx.memory().mapped - mapped, in_place);
        drop(value);
        assert_eq!(cx.memory().mapped, mapped);
        let expect_refusal = |name: &str, dtype: Option<DType>, code: Code, what: &str| {
            let error = reader.value(&cx, name, dtype).unwrap_err();
            assert_eq!(error.code, code);
            assert!(error.message.contains(what), "{error}");
        };
        expect_refusal("large", None, Code::Dtype, "tensor \"large\" is I64 and holds more than i32 does");
        expect_refusal(
            "f64",
            None,
            Code::Dtype,
            "tensor \"f64\" is F64; F32, F16, BF16, I32 and I64 can be loaded",
        );
        expect_refusal(
            "fits",
            Some(DType::F32),
            Code::Dtype,
            "tensor \"fits\" is I64 and is not converted to f32",
        );
        expect_refusal("other", None, Code::FileFormat, "there is no tensor \"other\"");
    }
}

#[test]
fn a_failed_write_keeps_the_old_file() {
    let folder = TestFolder::new();
    let path = folder.file("x.safetensors", "old");
    let entry = |name, bytes| TensorData { name, dtype: Dtype::F32, shape: &[2], bytes };
    let expect_refusal = |parts: &[TensorData], code: Code, what: &str| {
        let error = write(&path, parts, None).unwrap_err();
        assert_eq!(error.code, code);
        assert!(error.message.contains(what), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(folder.names(), ["x.safetensors"]);
    };
    let eight = [0; 8];
    expect_refusal(
        &[entry("a", &eight), entry("b", &eight[1..])],
        Code::ShapeMismatch,
        "\"b\" takes 8 bytes, 7",
    );
    expect_refusal(&[entry("a", &eight), entry("a", &eight)], Code::Option, "cannot be named \"a\"");
    expect_refusal(&[entry("__metadata__", &eight)], Code::Option, "__metadata__");
    let error = write(&folder.join("none/x"), &[entry("a", &eight)], None).unwrap_err();
    assert_eq!(error.code, Code::Write);
    assert!(error.message.contains("none/x: cannot be written: "), "{error}");
    std::fs::create_dir(folder.join("folder")).unwrap();
    let error = write(&folder.join("folder"), &[entry("a", &eight)], None).unwrap_err();
    assert_eq!(error.code, Code::Write);
    assert_eq!(folder.names(), ["folder", "x.safetensors"]);
    let spec = TensorSpec { name: "a", dtype: Dtype::F32, shape: &[2] };
    let writer = Writer::create(&path, &[spec], None).unwrap();
    assert_eq!(folder.names().len(), 3);
    assert!(writer.finish().unwrap_err().message.contains("\"a\" was not given"));
    assert_eq!(folder.names(), ["folder", "x.safetensors"]);
}

/// A limit on file sizes simulates a full disk: both fail a write half-way. It applies to a whole process, so this test
/// runs itself again in a separate one.
#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_old_file() {
    const FOLDER: &str = "LOWRANK_TEST_FULL_DISK";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let bytes = vec![7; 4 << 20];
        let entry = TensorData { name: "a", dtype: Dtype::U8, shape: &[bytes.len()], bytes: &bytes };
        let error = write(&Path::new(&folder).join("x.safetensors"), &[entry], None).unwrap_err();
        assert_eq!(error.code, Code::Write);
        println!("{error}");
        return;
    }
    let folder = TestFolder::new();
    let path = folder.file("x.safetensors", "old");
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "format::safetensors::tests::a_full_disk_keeps_the_old_file", "--nocapture"])
        .env(FOLDER, &*folder)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("x.safetensors: cannot be written: "), "{printed}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.names(), ["x.safetensors"]);
}

/// An accepted file's entries are within the file, cover it, and equal the reference's; a file that only the reference
/// accepts must be one that we refuse on purpose.
fn compare_with_reference(bytes: &[u8]) {
    let reference = SafeTensors::deserialize(bytes);
    match header::parse(bytes) {
        Ok(header) => {
            let reference = reference.expect("we are no laxer than the reference");
            assert_eq!(reference.len(), header.entries.len());
            let mut end = None;
            for entry in &header.entries {
                let slice = &bytes[entry.offset as usize..][..entry.bytes as usize];
                let tensor = reference.tensor(&entry.name).unwrap();
                assert!(std::ptr::eq(slice, tensor.data()) || slice.is_empty());
                assert_eq!((tensor.dtype(), tensor.shape()), (entry.dtype, &entry.shape[..]));
                assert_eq!(end.unwrap_or(entry.offset), entry.offset);
                end = Some(entry.offset + entry.bytes);
            }
            assert_eq!(end.unwrap_or(bytes.len() as u64), bytes.len() as u64);
        }
        Err(fault) => {
            assert!(fault.offset <= bytes.len(), "{fault:?}");
            let stricter = ["duplicate", "overflows"].iter().any(|s| fault.what.contains(s));
            assert!(reference.is_err() || stricter, "{fault:?}, and the reference reads it");
        }
    }
}

fn make_valid_file() -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt","k":"v"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"#,
        r#""b":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},"c":{"dtype":"U8","shape":[],"data_offsets":[34,35]},"#,
        r#""d":{"dtype":"I64","shape":[0,7],"data_offsets":[35,35]}}   "#
    );
    make_file(header, 35)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn random_byte_changes_agree_with_the_reference(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
    ) {
        let mut bytes = make_valid_file();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        compare_with_reference(&bytes);
    }

    #[test]
    fn removed_or_repeated_parts_agree_with_the_reference(
        from in any::<prop::sample::Index>(), count in 0usize..40, twice in any::<bool>()
    ) {
        let mut bytes = make_valid_file();
        let from = from.index(bytes.len());
        let part: Vec<u8> = bytes[from..].iter().take(count).copied().collect();
        bytes.splice(from..from + part.len(), if twice { part.repeat(2) } else { Vec::new() });
        // Makes the length fit the header again, so that the rest is checked.
        let header = bytes.len().saturating_sub(PREFIX + 35) as u64;
        compare_with_reference(&bytes);
        if bytes.len() >= PREFIX {
            bytes[..PREFIX].copy_from_slice(&header.to_le_bytes());
            compare_with_reference(&bytes);
        }
    }

    #[test]
    fn random_headers_agree_with_the_reference(
        tensors in prop::collection::vec(
            (
                "[a-c]",
                prop::sample::select(vec!["F32", "F16", "U8", "F4", "C64", "F33"]),
                prop::collection::vec(any_size(), 0..4),
                any_size(),
                any_size(),
            ),
            0..4,
        ),
        data in 0usize..40,
    ) {
        let members: Vec<String> = tensors
            .iter()
            .map(|(name, dtype, shape, begin, end)| {
                format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
            })
            .collect();
        compare_with_reference(&make_file(&format!("{{{}}}", members.join(",")), data));
    }
}

/// Mostly small numbers, sometimes absurd ones.
fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0u64..5, 3 => 0u64..40, 1 => any::<u64>(), 1 => Just(1 << 32), 1 => Just(u64::MAX)]
}
