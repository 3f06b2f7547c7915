//! Tests of valid and invalid tokenizer files, and of encoding.

use super::training::train_tokenizer;
use super::*;

/// Opens a tokenizer from this JSON.
fn open_json(json: &str) -> engine::Result<Tokenizer> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name =
        format!("lowrank-tokenizer-{}-{}.json", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, json).unwrap();
    let opened = Tokenizer::open(&path);
    std::fs::remove_file(path).unwrap();
    opened
}

fn train_small() -> String {
    let texts: Vec<String> = (0..50).map(|i| format!("the cat number {i} sat on the mat\n")).collect();
    train_tokenizer(&texts, 300, &["<s>".into(), "</s>".into()], Some("<s>")).unwrap()
}

#[test]
fn a_trained_tokenizer_round_trips_any_text() {
    let tokenizer = open_json(&train_small()).unwrap();
    assert!(tokenizer.size() <= 300 && tokenizer.size() > 258);
    assert_eq!(tokenizer.inner.token_to_id("<s>"), Some(0));
    assert_eq!(tokenizer.inner.id_to_token(1).as_deref(), Some("</s>"));
    for text in ["the cat sat", "", "  two  spaces ", "Ünïcödé – 漢字 🙂\n\t\0", "<s> inside"] {
        let ids = tokenizer.encode_ids(text, false).unwrap();
        assert_eq!(tokenizer.decode_ids(&ids, false).unwrap(), text);
        let with = tokenizer.encode_ids(text, true).unwrap();
        assert_eq!(with.split_first(), Some((&0, &ids[..])));
    }
    // "<s>" is skipped; the merged token is shorter than its bytes.
    assert_eq!(tokenizer.decode_ids(&[0, 1], true).unwrap(), "");
    assert!(tokenizer.encode_ids("the cat", false).unwrap().len() <= 4);
}

#[test]
fn equal_texts_give_equal_tokenizer_files() {
    assert_eq!(train_small(), train_small());
}

#[test]
fn invalid_training_options_are_refused() {
    let code = |size, special: &[String], bos| train_tokenizer(&[], size, special, bos).unwrap_err().code;
    assert_eq!(code(255, &[], None), Code::Option);
    assert_eq!(code(256, &["<s>".into()], None), Code::Option);
    assert_eq!(code(300, &[], Some("<s>")), Code::Option);
}

#[test]
fn the_bpe_parser_equals_the_generic_parser() {
    let model = |rest: &str| {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{ADDED}],"normalizer":{LOWER},
            "pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{{{rest}}}}}"#
        )
    };
    const ADDED: &str = concat!(
        r#"{"id":3,"content":"AB","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false},"#,
        r#"{"id":7,"content":"<s>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true}"#
    );
    const LOWER: &str = r#"{"type":"Lowercase"}"#;
    const VOCAB: &str = r#""vocab":{"<unk>":0,"a":1,"b":2,"ab":3,"c d":4,"c":5," d":6}"#;
    let files = [
        train_small(),
        model(&format!(r#""type":"BPE",{VOCAB},"merges":["a b"]"#)),
        model(&format!(r#"{VOCAB},"merges":[["a","b"],["c"," d"]],"unk_token":"<unk>","fuse_unk":true"#)),
        model(&format!(r#""type":"BPE","dropout":0.1,"byte_fallback":true,{VOCAB},"merges":[]"#)),
        model(r##""type":"BPE","vocab":{"a":0,"a":1,"b":2,"ab":9},"merges":["#version: 0.2","a b"]"##),
        model(&format!(r#""type":"BPE","of_no_meaning":{{}},{VOCAB},"merges":["a b"],"ignore_merges":true"#)),
        model(r#""type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"a""#),
        model(
            r###""type":"WordPiece","vocab":{"a":0,"##b":1},"unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":9"###,
        ),
    ];
    for json in &files {
        let (parsed, generic) = (parse_tokenizer(json.as_bytes()).unwrap(), Inner::from_bytes(json).unwrap());
        assert_eq!(parsed.to_string(false).unwrap(), generic.to_string(false).unwrap());
        for text in ["ab AB <s> abc d", "cat"] {
            let encode = |inner: &Inner| inner.encode_fast(text, true).map(|e| e.get_ids().to_vec()).ok();
            assert!(
                json.contains(r#""dropout":0.1"#) || encode(&parsed) == encode(&generic),
                "{json}: {text}"
            );
        }
    }
    // The message contains the parser's reason.
    for json in
        [files[1].replace("a b", "a x"), files[1].replace("a b", "ab"), files[1].replace("1.0", "2.0")]
    {
        let read_error = |read: tokenizers::Result<Inner>| read.err().unwrap().to_string();
        assert_eq!(read_error(parse_tokenizer(json.as_bytes())), read_error(Inner::from_bytes(&json)));
    }
}

#[test]
fn ids_without_a_token_are_refused() {
    let tokenizer = open_json(&train_small()).unwrap();
    for id in [-1, tokenizer.size() as i32, i32::MAX] {
        let error = tokenizer.decode_ids(&[0, id], true).unwrap_err();
        assert_eq!(error.code, Code::Index);
        assert!(error.message.contains(&format!("id {id} at 1 is no token")), "{error}");
    }
}

#[test]
fn invalid_tokenizer_files_are_refused() {
    // A merge that is longer than any token.
    let unfit = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":null,
        "model":{"type":"BPE","vocab":{"a":0,"ab":1,"b":2},"merges":["ab ab"]}}"#;
    for json in ["", "{", "{}", "[1]", r#"{"model":{"type":"BPE"}}"#, "\u{0}", unfit] {
        let error = open_json(json).err().expect("must be refused");
        assert_eq!(error.code, Code::FileFormat, "{error}");
        assert!(error.message.contains(".json: not a tokenizer.json: "), "{error}");
        assert_eq!(error.message.lines().count(), 1);
    }
    let missing = Tokenizer::open(Path::new("none/tokenizer.json")).err().unwrap();
    assert_eq!(missing.code, Code::FileNotFound);
}

#[test]
fn truncation_and_padding_of_the_file_are_ignored() {
    let with = |key: &str, value: &str| {
        train_small().replace(&format!("\"{key}\": null"), &format!("\"{key}\": {value}"))
    };
    let cut = r#"{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0}"#;
    let pad = concat!(
        r#"{"strategy":{"Fixed":64},"direction":"Right","pad_to_multiple_of":null,"#,
        r#""pad_id":0,"pad_type_id":0,"pad_token":"<s>"}"#
    );
    let plain = open_json(&train_small()).unwrap().encode_ids("the cat sat on the mat", true).unwrap();
    for json in [with("truncation", cut), with("padding", pad)] {
        assert_ne!(json, train_small());
        assert_eq!(open_json(&json).unwrap().encode_ids("the cat sat on the mat", true).unwrap(), plain);
    }
}

/// A pretrained SentencePiece tokenizer, if its folder is present.
#[test]
fn stories260k_encodes_like_the_reference() {
    let Some(folder) = std::env::var_os("LOWRANK_STORIES260K") else {
        println!("not run: LOWRANK_STORIES260K is not set to the model's folder");
        return;
    };
    let tokenizer = Tokenizer::open(&Path::new(&folder).join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.size(), 512);
    let text = "Once upon a time, there was a little girl named Lily.";
    let ids = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426];
    assert_eq!(tokenizer.encode_ids(text, true).unwrap(), ids);
    assert_eq!(tokenizer.encode_ids(text, false).unwrap(), ids[1..]);
    assert_eq!(tokenizer.decode_ids(&ids, true).unwrap(), text);
}
