//! Tokenizers from the vocabulary of a GGUF file. The texts stay in Rust: as JavaScript strings they grow V8's heap,
//! which keeps the pages (17 MB for SmolLM2's 49,152 tokens and 48,900 merges, in a process of 600 MB).

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::format::gguf::{Reader, Texts};
use napi_derive::napi;
use serde_json::{Value, from_value, json};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";

/// Values of `tokenizer.ggml.token_type`.
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// The replacement of a space in SentencePiece's vocabularies.
const SPACE: &str = "\u{2581}";

/// The parts of a tokenizer in addition to its vocabulary, and its construction.
#[napi(object)]
pub struct GgufTokenizer {
    /// `normalizer`, `pre_tokenizer` and `decoder` in the format of `tokenizer.json`: a JSON object.
    pub parts: String,
    /// `sentencepiece` (with byte fallback, and merges from scores if none are listed) or `byte-level`.
    pub kind: String,
    /// Whether a word that is a token is used without merging its characters.
    pub ignore_merges: bool,
    /// Whether runs of spaces are stored unchanged and merges are ordered by token ids instead of scores.
    pub gemma: bool,
    /// The unknown token. The default for SentencePiece is the first token of that type.
    pub unknown: Option<u32>,
    /// Tokens with a special meaning.
    pub named: Vec<u32>,
    /// Tokens before and after each text.
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

/// Builds the tokenizer. Errors: `ERR_FILE_FORMAT` for an invalid vocabulary.
pub fn build_from_file(reader: &Reader, given: &GgufTokenizer) -> engine::Result<Tokenizer> {
    let file = File(reader);
    let sentence_piece = given.kind == "sentencepiece";
    let tokens = reader.read_texts(TOKENS, |texts| texts.map(|text| text.map(String::from)).collect())?;
    let mut tokens: Vec<String> =
        tokens.ok_or_else(|| file.missing_key_error(TOKENS, "a file with a tokenizer"))?;
    let types: Option<Vec<f64>> = reader.read_numbers(TYPES, |types| {
        if types.len() != tokens.len() {
            let what = format!("must be of {} tokens, and is of {}", tokens.len(), types.len());
            return Err(file.wrong_value_error(TYPES, what));
        }
        types.collect()
    })?;
    if given.gemma {
        for token in tokens.iter_mut().filter(|token| token.bytes().all(|byte| byte == b' ')) {
            *token = SPACE.repeat(token.len());
        }
    }
    let longest = tokens.iter().map(String::len).max().unwrap_or(0);
    let merges = match reader.read_texts(MERGES, |listed| split_merges(&file, listed, longest))? {
        Some(merges) => merges,
        None if sentence_piece => find_merges(&file, &tokens, given.gemma)?,
        None => return Err(file.missing_key_error(MERGES, "a vocabulary of this kind")),
    };
    let text = |id: &u32| tokens.get(*id as usize).cloned();
    let texts = |ids: &[u32]| ids.iter().filter_map(text).collect::<Vec<_>>();
    let (named, before, after) = (texts(&given.named), texts(&given.before), texts(&given.after));
    let first_unknown = || types.as_ref()?.iter().position(|kind| *kind == UNKNOWN).map(|id| id as u32);
    let unknown = given.unknown.or_else(first_unknown).filter(|_| sentence_piece).and_then(|id| text(&id));
    let added = list_added_tokens(&tokens, types.as_deref(), &named.into_iter().collect());
    // Of equal texts, the later token's id is used.
    let vocab: Vocab = tokens.into_iter().enumerate().map(|(id, token)| (token, id as u32)).collect();
    let added = added.into_iter().filter(|(id, token)| vocab[&token.content] == *id).map(|(_, token)| token);
    let added: Vec<AddedToken> = added.collect();
    let frame = make_frame(&vocab, &before, &after);
    let mut model = BpeBuilder::new()
        .fuse_unk(sentence_piece)
        .byte_fallback(sentence_piece)
        .ignore_merges(given.ignore_merges)
        .vocab_and_merges(vocab, merges);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown);
    }
    let model = model.build().map_err(|e| file.build_error(e))?;
    assemble(model, &given.parts, frame, added).map_err(|e| file.build_error(e))
}

/// Assembles the tokenizer's parts in the order of their dependencies.
fn assemble(model: BPE, parts: &str, frame: Value, added: Vec<AddedToken>) -> tokenizers::Result<Tokenizer> {
    let mut parts: HashMap<String, Value> = serde_json::from_str(parts)?;
    let mut part = |name: &str| parts.remove(name).unwrap_or_default();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(from_value::<Option<NormalizerWrapper>>(part("normalizer"))?)?;
    tokenizer.with_pre_tokenizer(from_value::<Option<PreTokenizerWrapper>>(part("pre_tokenizer"))?);
    tokenizer.with_decoder(from_value::<Option<DecoderWrapper>>(part("decoder"))?);
    tokenizer.with_post_processor(from_value::<Option<PostProcessorWrapper>>(frame)?);
    tokenizer.add_tokens(added)?;
    Ok(tokenizer)
}

/// Creates errors that name the file.
struct File<'a>(&'a Reader);

impl File<'_> {
    fn format_error(&self, what: impl Display) -> engine::Error {
        fail_code(Code::FileFormat, format!("{}: {what}", self.0.path().display()))
    }

    fn wrong_value_error(&self, key: &str, what: impl Display) -> engine::Error {
        self.format_error(format_args!("{key} {what}"))
    }

    fn missing_key_error(&self, key: &str, whose: &str) -> engine::Error {
        self.wrong_value_error(key, format_args!("is missing, which {whose} has"))
    }

    fn build_error(&self, why: impl Display) -> engine::Error {
        self.format_error(format!("no tokenizer is made of it: {why}").replace('\n', " "))
    }
}

/// Splits listed merges into their two parts, by priority. A token longer than `longest` bytes is an error,
/// since the model's builder would panic.
fn split_merges(file: &File, listed: Texts, longest: usize) -> engine::Result<Vec<(String, String)>> {
    let pair = |(i, merge): (usize, engine::Result<&str>)| {
        let merge = merge?;
        // A space is the separator, and neither part begins with one.
        let second = merge.char_indices().nth(1).map_or(merge.len(), |(at, _)| at);
        match merge[second..].find(' ').map(|at| second + at) {
            Some(at) if at + 1 < merge.len() && merge.len() - 1 > longest => {
                let token = format!("{}{}", &merge[..at], &merge[at + 1..]);
                Err(file.build_error(format_args!("Token `{token}` out of vocabulary")))
            }
            Some(at) if at + 1 < merge.len() => Ok((merge[..at].into(), merge[at + 1..].into())),
            _ => {
                let what =
                    format!("must be pairs with a space between, and number {i} is {}", Value::from(merge));
                Err(file.wrong_value_error(MERGES, what))
            }
        }
    };
    listed.enumerate().map(pair).collect()
}

/// A pair of tokens that merges into a token.
struct Merge {
    score: f64,
    left: u32,
    right: u32,
    /// The lengths of both, in characters.
    sizes: (usize, usize),
}

/// Finds all merges of two tokens into a token, ordered by score; with `by_id`, by token id.
fn find_merges(file: &File, tokens: &[String], by_id: bool) -> engine::Result<Vec<(String, String)>> {
    let scores: Option<Vec<f64>> = file.0.read_numbers(SCORES, |scores| {
        if scores.len() != tokens.len() {
            let what =
                format!("must have a score for each of {} tokens, and has {}", tokens.len(), scores.len());
            return Err(file.wrong_value_error(SCORES, what));
        }
        scores.collect()
    })?;
    let scores = scores.ok_or_else(|| file.missing_key_error(SCORES, "a vocabulary of this kind"))?;
    let ids: HashMap<&str, u32> =
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id as u32)).collect();
    let mut found: Vec<Merge> = Vec::new();
    for (id, token) in tokens.iter().enumerate().filter(|(id, token)| ids[token.as_str()] == *id as u32) {
        // Zero has one sign.
        let score = if by_id { -(id as f64) } else { scores[id] } + 0.0;
        let letters = token.chars().count();
        for (i, (at, _)) in token.char_indices().enumerate().skip(1) {
            if let (Some(left), Some(right)) = (ids.get(&token[..at]), ids.get(&token[at..])) {
                found.push(Merge { score, left: *left, right: *right, sizes: (i, letters - i) });
            }
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.sizes.cmp(&a.sizes)));
    let text = |id: u32| tokens[id as usize].clone();
    Ok(found.iter().map(|merge| (text(merge.left), text(merge.right))).collect())
}

/// Returns the tokens that are matched in a text before anything else, with their ids.
fn list_added_tokens(
    tokens: &[String],
    types: Option<&[f64]>,
    named: &HashSet<String>,
) -> Vec<(u32, AddedToken)> {
    let added = |(id, token): (usize, &String)| {
        let kind = types.map(|types| types[id]);
        let control = kind == Some(CONTROL) || named.contains(token);
        (control || kind == Some(USER_DEFINED))
            .then(|| (id as u32, AddedToken::from(token.clone(), control).normalized(false)))
    };
    tokens.iter().enumerate().filter_map(added).collect()
}

/// Returns the post-processor's JSON for the tokens around a text; null for none.
fn make_frame(vocab: &Vocab, before: &[String], after: &[String]) -> Value {
    if before.is_empty() && after.is_empty() {
        return Value::Null;
    }
    let framed = |text: &str, type_id: u32| {
        let token = |token: &String| json!({ "SpecialToken": { "id": token, "type_id": type_id } });
        let text = json!({ "Sequence": { "id": text, "type_id": type_id } });
        before.iter().map(token).chain([text]).chain(after.iter().map(token)).collect::<Vec<_>>()
    };
    let pair = [framed("A", 0), framed("B", 1)].concat();
    let special = before
        .iter()
        .chain(after)
        .map(|token| (token.clone(), json!({ "id": token, "ids": [vocab[token]], "tokens": [token] })));
    json!({
        "type": "TemplateProcessing",
        "single": framed("A", 0),
        "pair": pair,
        "special_tokens": special.collect::<serde_json::Map<_, _>>(),
    })
}
