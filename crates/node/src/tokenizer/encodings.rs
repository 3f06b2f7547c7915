//! Encodings of texts and pairs of texts, with all data that models and taggers read.

use lowrank_engine::error::{self as engine, Code, fail_code};
use napi_derive::napi;
use rayon::prelude::*;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationError, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, Model, OffsetType, PostProcessor, PreTokenizer, Result, Tokenizer as Inner};

use crate::cpu_use;

/// The options of an encoding.
#[napi(object)]
pub struct EncodingOptions {
    pub add_special_tokens: bool,
    /// The most tokens of a row, special tokens included; unlimited if absent.
    pub max_length: Option<u32>,
    /// Which text loses tokens: `longest_first`, `only_first` or `only_second`.
    pub strategy: String,
    /// Whether tokens are removed at the start of a text instead of its end.
    pub left: bool,
}

/// The tokens of all rows, concatenated; `rows` holds each row's end. Absent values are -1.
#[derive(Default)]
pub struct Encodings {
    pub ids: Vec<i32>,
    pub type_ids: Vec<i32>,
    /// First and last offset of each token in its text, in UTF-16 units; 0 and 0 for special tokens.
    pub starts: Vec<i32>,
    pub ends: Vec<i32>,
    pub words: Vec<i32>,
    pub sequences: Vec<i32>,
    pub rows: Vec<i32>,
}

/// Encodes each text, or each text with its pair, in parallel.
pub fn encode_rows(
    inner: &Inner,
    texts: &[String],
    pairs: Option<&[String]>,
    options: &EncodingOptions,
) -> engine::Result<Encodings> {
    let params = make_truncation(inner, pairs.is_some(), options)?;
    let encode = |(row, text): (usize, &String)| {
        let pair = pairs.map(|pairs| pairs[row].as_str());
        encode(inner, text, pair, params.as_ref(), options.add_special_tokens)
            .map(|encoding| {
                (encoding, find_utf16_offsets(text), find_utf16_offsets(pair.unwrap_or_default()))
            })
            .map_err(|error| wrap_error(error, row, texts.len(), params.as_ref()))
    };
    let encode = || texts.par_iter().enumerate().map(encode).collect::<engine::Result<Vec<_>>>();
    let rows = cpu_use::run_parallel(encode)??;
    let mut all = Encodings::default();
    for (encoding, first, second) in &rows {
        all.append(encoding, [first, second]);
    }
    Ok(all)
}

/// The limit on a row's tokens, less the special tokens that the tokenizer adds.
fn make_truncation(
    inner: &Inner,
    paired: bool,
    options: &EncodingOptions,
) -> engine::Result<Option<TruncationParams>> {
    let Some(max_length) = options.max_length else { return Ok(None) };
    let added = match inner.get_post_processor() {
        Some(processor) if options.add_special_tokens => processor.added_tokens(paired),
        _ => 0,
    };
    let Some(max_length) = (max_length as usize).checked_sub(added) else {
        return Err(fail_code(
            Code::Option,
            format!("maxLength {max_length} is less than the {added} special tokens of a row"),
        ));
    };
    let strategy = match options.strategy.as_str() {
        "only_first" => TruncationStrategy::OnlyFirst,
        "only_second" => TruncationStrategy::OnlySecond,
        _ => TruncationStrategy::LongestFirst,
    };
    let direction = if options.left { TruncationDirection::Left } else { TruncationDirection::Right };
    Ok(Some(TruncationParams { direction, max_length, strategy, stride: 0 }))
}

fn wrap_error(
    error: tokenizers::Error,
    row: usize,
    rows: usize,
    params: Option<&TruncationParams>,
) -> engine::Error {
    let place = if rows == 1 { String::new() } else { format!("row {row}: ") };
    match (error.downcast_ref::<TruncationError>(), params) {
        (Some(TruncationError::SequenceTooShort), Some(params)) => {
            let text = match params.strategy {
                TruncationStrategy::OnlySecond => "second",
                _ => "first",
            };
            fail_code(
                Code::Option,
                format!(
                    "{place}the {text} text is too short to bring the row down to maxLength; raise maxLength, or \
                     truncate longest_first"
                ),
            )
        }
        _ => fail_code(Code::Internal, format!("{place}{error}")),
    }
}

/// Like `tokenizers::Tokenizer::encode_char_offsets`, but with this call's truncation.
fn encode(
    inner: &Inner,
    text: &str,
    pair: Option<&str>,
    params: Option<&TruncationParams>,
    add_special_tokens: bool,
) -> Result<Encoding> {
    let mut first = encode_tokens(inner, text, 0)?;
    let mut second = pair.map(|pair| encode_tokens(inner, pair, 1)).transpose()?;
    if let Some(params) = params {
        (first, second) = truncate_encodings(first, second, params)?;
        // Otherwise the post-processor would combine each overflowing part of one text with each of the other.
        first.take_overflowing();
        if let Some(second) = &mut second {
            second.take_overflowing();
        }
    }
    inner.post_process(first, second, add_special_tokens)
}

/// Returns the tokens of one text before post-processing, with offsets in characters.
fn encode_tokens(inner: &Inner, text: &str, type_id: u32) -> Result<Encoding> {
    let mut words = inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text);
    if let Some(splitter) = inner.get_pre_tokenizer() {
        splitter.pre_tokenize(&mut words)?;
    }
    words.tokenize(|word| inner.get_model().tokenize(word.get()))?;
    words.into_encoding(None, type_id, OffsetType::Char)
}

/// Returns the UTF-16 offset of each character, and of the text's end.
fn find_utf16_offsets(text: &str) -> Vec<i32> {
    let starts = text.chars().scan(0, |unit, c| {
        let start = *unit;
        *unit += c.len_utf16() as i32;
        Some(start)
    });
    starts.chain([text.encode_utf16().count() as i32]).collect()
}

impl Encodings {
    fn append(&mut self, encoding: &Encoding, units: [&Vec<i32>; 2]) {
        let sequences = encoding.get_sequence_ids();
        for (i, id) in encoding.get_ids().iter().enumerate() {
            let sequence = sequences[i];
            let special = encoding.get_special_tokens_mask()[i] != 0 || sequence.is_none();
            let (start, end) = match (sequence, special) {
                (Some(sequence), false) => {
                    let units = units[sequence];
                    let (start, end) = encoding.get_offsets()[i];
                    let at = |place: usize| units[place.min(units.len() - 1)];
                    (at(start), at(end))
                }
                _ => (0, 0),
            };
            let word = encoding.get_word_ids()[i].filter(|_| !special);
            self.ids.push(*id as i32);
            self.type_ids.push(encoding.get_type_ids()[i] as i32);
            self.starts.push(start);
            self.ends.push(end);
            self.words.push(word.map_or(-1, |word| word as i32));
            self.sequences.push(sequence.map_or(-1, |sequence| sequence as i32));
        }
        self.rows.push(self.ids.len() as i32);
    }
}
