//! Lists of the metadata, read without creating a value for each element.

use super::super::Reader;
use super::written::{file, meta_list, meta_text, text};
use crate::error::{Code, Result};
use crate::format::test_folder::TestFolder;

/// A file whose metadata has every type of number by name, and lists of other values.
fn reader(folder: &TestFolder) -> Reader {
    let f32s = [1.5f32, -0.0].map(f32::to_le_bytes).concat();
    let f64s = [1e300f64, -2.5].map(f64::to_le_bytes).concat();
    let i64s = [i64::MIN, -1].map(i64::to_le_bytes).concat();
    let texts = [text(""), text("ü"), text("▁a b"), text("\n")].concat();
    let keys = [
        ("f32", meta_list(6, 2, &f32s)),
        ("f64", meta_list(12, 2, &f64s)),
        ("i64", meta_list(11, 2, &i64s)),
        ("u8", meta_list(0, 3, &[0, 7, 255])),
        ("i8", meta_list(1, 2, &[0x80, 1])),
        ("texts", meta_list(8, 4, &texts)),
        ("none", meta_list(4, 0, &[])),
        ("truths", meta_list(7, 1, &[1])),
        ("lists", meta_list(9, 1, &meta_list(0, 1, &[5])[4..])),
        ("text", meta_text("x")),
    ];
    Reader::open(folder.file("lists.gguf", file(&keys, &[], 32, &[]))).unwrap()
}

fn texts(reader: &Reader, key: &str) -> Result<Option<Vec<String>>> {
    reader.texts(key, |texts| texts.map(|text| text.map(String::from)).collect())
}

fn numbers(reader: &Reader, key: &str) -> Result<Option<Vec<f64>>> {
    reader.numbers(key, |numbers| numbers.collect())
}

#[test]
fn texts_and_numbers_as_they_are_stored() {
    let folder = TestFolder::new();
    let reader = reader(&folder);
    assert_eq!(texts(&reader, "texts").unwrap().unwrap(), ["", "ü", "▁a b", "\n"]);
    assert_eq!(reader.text_count("texts").unwrap(), Some(4));
    let at = |at| reader.text_at("texts", at).unwrap();
    assert_eq!(
        [at(0), at(2), at(3), at(4), at(usize::MAX)],
        [Some(String::new()), Some("▁a b".into()), Some("\n".into()), None, None]
    );
    let numbers = |key| numbers(&reader, key).unwrap().unwrap();
    assert_eq!(numbers("f32"), [1.5, -0.0]);
    assert!(numbers("f32")[1].is_sign_negative());
    assert_eq!(numbers("f64"), [1e300, -2.5]);
    assert_eq!(numbers("i64"), [i64::MIN as f64, -1.0]);
    assert_eq!(numbers("u8"), [0.0, 7.0, 255.0]);
    assert_eq!(numbers("i8"), [-128.0, 1.0]);
}

#[test]
fn what_is_not_there_or_another_value() {
    let folder = TestFolder::new();
    let reader = reader(&folder);
    assert_eq!(texts(&reader, "nowhere").unwrap(), None);
    assert_eq!(reader.text_at("nowhere", 0).unwrap(), None);
    assert_eq!(numbers(&reader, "nowhere").unwrap(), None);
    assert_eq!(reader.place("nowhere").unwrap(), None);
    // An empty list has any type.
    assert_eq!(texts(&reader, "none").unwrap().unwrap(), [""; 0]);
    assert!(numbers(&reader, "none").unwrap().unwrap().is_empty());
    for key in ["u8", "truths", "lists", "text"] {
        for error in [
            texts(&reader, key).unwrap_err(),
            reader.text_count(key).unwrap_err(),
            reader.text_at(key, 0).unwrap_err(),
        ] {
            assert_eq!(error.code, Code::FileFormat);
            assert!(
                error.message.ends_with(&format!("lists.gguf: {key} must be a list of texts")),
                "{error}"
            );
        }
    }
    for key in ["texts", "truths", "lists", "text"] {
        let error = numbers(&reader, key).unwrap_err();
        assert_eq!(error.code, Code::FileFormat);
        assert!(error.message.ends_with(&format!("lists.gguf: {key} must be a list of numbers")), "{error}");
    }
}

#[test]
fn where_a_value_lies() {
    let folder = TestFolder::new();
    let reader = reader(&folder);
    let bytes = std::fs::read(reader.path()).unwrap();
    let at = |key| &bytes[reader.place(key).unwrap().unwrap()];
    assert_eq!(at("u8"), meta_list(0, 3, &[0, 7, 255]));
    assert_eq!(at("text"), meta_text("x"));
    assert_eq!(at("none"), meta_list(4, 0, &[]));
}
