//! Lists of the metadata, read without creating a value for each element.

use super::super::Reader;
use super::written::{encode_file, encode_meta_list, encode_meta_text, encode_text};
use crate::error::{Code, Result};
use crate::format::test_folder::TestFolder;

/// A file whose metadata has every type of number by name, and lists of other values.
fn open_reader(folder: &TestFolder) -> Reader {
    let f32s = [1.5f32, -0.0].map(f32::to_le_bytes).concat();
    let f64s = [1e300f64, -2.5].map(f64::to_le_bytes).concat();
    let i64s = [i64::MIN, -1].map(i64::to_le_bytes).concat();
    let texts = [encode_text(""), encode_text("ü"), encode_text("▁a b"), encode_text("\n")].concat();
    let keys = [
        ("f32", encode_meta_list(6, 2, &f32s)),
        ("f64", encode_meta_list(12, 2, &f64s)),
        ("i64", encode_meta_list(11, 2, &i64s)),
        ("u8", encode_meta_list(0, 3, &[0, 7, 255])),
        ("i8", encode_meta_list(1, 2, &[0x80, 1])),
        ("texts", encode_meta_list(8, 4, &texts)),
        ("none", encode_meta_list(4, 0, &[])),
        ("truths", encode_meta_list(7, 1, &[1])),
        ("lists", encode_meta_list(9, 1, &encode_meta_list(0, 1, &[5])[4..])),
        ("text", encode_meta_text("x")),
    ];
    Reader::open(folder.file("lists.gguf", encode_file(&keys, &[], 32, &[]))).unwrap()
}

fn read_texts(reader: &Reader, key: &str) -> Result<Option<Vec<String>>> {
    reader.read_texts(key, |texts| texts.map(|text| text.map(String::from)).collect())
}

fn read_numbers(reader: &Reader, key: &str) -> Result<Option<Vec<f64>>> {
    reader.read_numbers(key, |numbers| numbers.collect())
}

#[test]
fn lists_of_texts_and_numbers_are_read() {
    let folder = TestFolder::new();
    let reader = open_reader(&folder);
    assert_eq!(read_texts(&reader, "texts").unwrap().unwrap(), ["", "ü", "▁a b", "\n"]);
    assert_eq!(reader.text_count("texts").unwrap(), Some(4));
    let at = |at| reader.text_at("texts", at).unwrap();
    assert_eq!(
        [at(0), at(2), at(3), at(4), at(usize::MAX)],
        [Some(String::new()), Some("▁a b".into()), Some("\n".into()), None, None]
    );
    let numbers = |key| read_numbers(&reader, key).unwrap().unwrap();
    assert_eq!(numbers("f32"), [1.5, -0.0]);
    assert!(numbers("f32")[1].is_sign_negative());
    assert_eq!(numbers("f64"), [1e300, -2.5]);
    assert_eq!(numbers("i64"), [i64::MIN as f64, -1.0]);
    assert_eq!(numbers("u8"), [0.0, 7.0, 255.0]);
    assert_eq!(numbers("i8"), [-128.0, 1.0]);
}

#[test]
fn missing_keys_give_none_and_other_types_are_refused() {
    let folder = TestFolder::new();
    let reader = open_reader(&folder);
    assert_eq!(read_texts(&reader, "nowhere").unwrap(), None);
    assert_eq!(reader.text_at("nowhere", 0).unwrap(), None);
    assert_eq!(read_numbers(&reader, "nowhere").unwrap(), None);
    assert_eq!(reader.find_range("nowhere").unwrap(), None);
    // An empty list has any type.
    assert_eq!(read_texts(&reader, "none").unwrap().unwrap(), [""; 0]);
    assert!(read_numbers(&reader, "none").unwrap().unwrap().is_empty());
    for key in ["u8", "truths", "lists", "text"] {
        for error in [
            read_texts(&reader, key).unwrap_err(),
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
        let error = read_numbers(&reader, key).unwrap_err();
        assert_eq!(error.code, Code::FileFormat);
        assert!(error.message.ends_with(&format!("lists.gguf: {key} must be a list of numbers")), "{error}");
    }
}

#[test]
fn the_byte_range_of_a_value_is_found() {
    let folder = TestFolder::new();
    let reader = open_reader(&folder);
    let bytes = std::fs::read(reader.path()).unwrap();
    let at = |key| &bytes[reader.find_range(key).unwrap().unwrap()];
    assert_eq!(at("u8"), encode_meta_list(0, 3, &[0, 7, 255]));
    assert_eq!(at("text"), encode_meta_text("x"));
    assert_eq!(at("none"), encode_meta_list(4, 0, &[]));
}
