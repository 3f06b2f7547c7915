//! Tokenizers from `tokenizer.json`.

mod encodings;
mod offsets;
mod seams;
mod splitters;
#[cfg(test)]
mod tests;
mod training;
mod vocabulary;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::format::read_file;
use napi::Env;
use napi::bindgen_prelude::{Either, Float64ArraySlice, Int32ArraySlice, Object};
use napi_derive::napi;
use rayon::prelude::*;
use tokenizers::models::bpe::BPE;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer as Inner,
    TokenizerImpl,
};

use crate::background;
use crate::cpu_use;
use crate::error::{Result, to_js_error, wrap_napi_error};
use crate::gguf::GgufFile;
use crate::session::{Failure, to_failure};
use encodings::{EncodingOptions, encode_rows};
use offsets::{TokenOffsets, encode_with_offsets};
use seams::Seams;
use vocabulary::GgufTokenizer;

/// Converts text to token ids and back.
#[napi]
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) inner: Arc<Inner>,
    seams: Arc<OnceLock<Seams>>,
}

/// Bytes of a text that one thread encodes as a unit: enough to keep threads busy, and few enough to limit the memory
/// of an encoding in addition to its ids (about 150 bytes per byte of text).
const PIECE: usize = 32 << 10;

/// Minimum piece, in bytes, when only the first tokens of a longer text are wanted; the piece grows with their number.
const ROW_PIECE: usize = 1 << 10;
const BYTES_A_TOKEN: usize = 4;

/// A tokenizer with a BPE model and any other parts.
type BpeTokenizer =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Parses a `tokenizer.json`. The generic parser builds a tree of JSON values first, which dominates the time at fifty
/// thousand tokens. So it parses the file as BPE first and falls back to the generic parser.
fn parse_tokenizer(bytes: &[u8]) -> tokenizers::Result<Inner> {
    serde_json::from_slice::<BpeTokenizer>(bytes).map(Inner::from).or_else(|_| Inner::from_bytes(bytes))
}

/// The ids of the start of a text.
struct TextStart {
    ids: Vec<i32>,
    /// The number of ids of the whole text; an estimate if it was not encoded to its end.
    total: usize,
}

fn to_i32_ids(ids: &[u32]) -> impl Iterator<Item = i32> {
    ids.iter().map(|id| *id as i32)
}

fn encode_error(error: tokenizers::Error) -> engine::Error {
    fail_code(Code::Internal, format!("encode: {error}"))
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. Ignores its truncation and padding, as transformers does: batching decides them.
    fn open(path: &Path) -> engine::Result<Tokenizer> {
        let bytes = read_file(path)?;
        let shown = path.display();
        let invalid = |e: tokenizers::Error| {
            let what = format!("{shown}: not a tokenizer.json: {e}");
            fail_code(Code::FileFormat, what.replace('\n', " "))
        };
        // The parser reports nothing on inconsistent parts; it panics.
        let unfit = |e: engine::Error| match e.code {
            Code::Internal => invalid("its vocabulary and its other parts do not fit one another".into()),
            _ => e,
        };
        let mut inner = background::catch_panic("tokenizer", || parse_tokenizer(&bytes).map_err(invalid))
            .map_err(unfit)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(invalid)?;
        Ok(Tokenizer::new(inner))
    }

    fn new(inner: Inner) -> Tokenizer {
        Tokenizer { inner: Arc::new(inner), seams: Arc::default() }
    }

    fn seams(&self) -> &Seams {
        self.seams.get_or_init(|| Seams::for_tokenizer(&self.inner))
    }

    /// Returns the first `limit` ids of a text and encodes little more than they need.
    fn encode_beginning(
        &self,
        text: &str,
        add_special_tokens: bool,
        limit: usize,
    ) -> engine::Result<TextStart> {
        let size = ROW_PIECE.max(limit.saturating_mul(BYTES_A_TOKEN));
        let mut whole = TextStart { ids: Vec::new(), total: 0 };
        // Computing the seams of a large vocabulary takes longer than encoding a short text.
        let seams = (text.len() / 2 > size).then(|| self.seams()).filter(|seams| seams.can_find_seams());
        if let Some(seams) = seams {
            let (before, after) = if add_special_tokens { seams.frame() } else { Default::default() };
            let ids = &mut whole.ids;
            ids.extend(to_i32_ids(before));
            let mut read = 0;
            while ids.len() < limit && read < text.len() {
                let end = seams.find_piece_end(text, read, size);
                let piece = seams.encode(&self.inner, &text[read..end], read == 0).map_err(encode_error)?;
                ids.extend(to_i32_ids(&piece));
                read = end;
            }
            if read == text.len() {
                ids.extend(to_i32_ids(after));
                whole.total = ids.len();
            } else {
                whole.total = (ids.len() as f64 * text.len() as f64 / read as f64) as usize;
            }
        } else {
            whole.ids = self.encode_ids(text, add_special_tokens)?;
            whole.total = whole.ids.len();
        }
        whole.ids.truncate(limit);
        Ok(whole)
    }

    /// Encodes a part of a text between two seams; its pieces run in parallel.
    fn encode_pieces(&self, text: &str, first: bool) -> engine::Result<Vec<i32>> {
        let seams = self.seams();
        let pieces = seams.split_pieces(text, PIECE);
        let encode = |(i, piece): (usize, &&str)| {
            let ids = seams.encode(&self.inner, piece, first && i == 0).map_err(encode_error)?;
            Ok(to_i32_ids(&ids).collect())
        };
        let pieces: Vec<Vec<i32>> = cpu_use::run_parallel(|| {
            pieces.par_iter().enumerate().with_max_len(1).map(encode).collect::<engine::Result<_>>()
        })??;
        Ok(pieces.concat())
    }

    fn encode_ids(&self, text: &str, add_special_tokens: bool) -> engine::Result<Vec<i32>> {
        let encoding = self.inner.encode_fast(text, add_special_tokens).map_err(encode_error)?;
        Ok(to_i32_ids(encoding.get_ids()).collect())
    }

    fn decode_ids(&self, ids: &[i32], skip_special_tokens: bool) -> engine::Result<String> {
        let known = |(at, id): (usize, &i32)| match u32::try_from(*id) {
            Ok(id) if self.inner.id_to_token(id).is_some() => Ok(id),
            _ => Err(fail_code(
                Code::Index,
                format!("decode: id {id} at {at} is no token of a vocabulary of {}", self.size()),
            )),
        };
        let ids: Vec<u32> = ids.iter().enumerate().map(known).collect::<engine::Result<_>>()?;
        self.inner
            .decode(&ids, skip_special_tokens)
            .map_err(|e| fail_code(Code::Internal, format!("decode: {e}")))
    }

    fn size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

#[napi]
impl Tokenizer {
    /// Throws `ERR_FILE_NOT_FOUND`, `ERR_FILE_FORMAT`.
    #[napi(catch_unwind, factory)]
    pub fn from_file(path: String) -> Result<Tokenizer> {
        Tokenizer::open(Path::new(&path)).map_err(to_js_error)
    }

    /// Creates a tokenizer from the vocabulary of a GGUF file. Throws `ERR_FILE_FORMAT`.
    #[napi(catch_unwind, factory)]
    pub fn from_gguf(file: &GgufFile, given: GgufTokenizer) -> Result<Tokenizer> {
        let made = background::catch_panic("tokenizer", || vocabulary::build_from_file(&file.reader, &given));
        made.map(Tokenizer::new).map_err(to_js_error)
    }

    /// Returns the tokenizer as the text of a `tokenizer.json`.
    #[napi(catch_unwind)]
    pub fn to_json(&self) -> Result<String> {
        let failed = |e| to_js_error(fail_code(Code::Internal, format!("toJson: {e}")));
        self.inner.to_string(false).map_err(failed)
    }

    #[napi(catch_unwind)]
    pub fn encode<'env>(
        &self,
        env: &'env Env,
        text: String,
        add_special_tokens: bool,
    ) -> Result<Int32ArraySlice<'env>> {
        let ids = background::catch_panic("encode", || self.encode_ids(&text, add_special_tokens))
            .map_err(to_js_error)?;
        Int32ArraySlice::copy_from(env, &ids[..]).map_err(wrap_napi_error)
    }

    /// Encodes texts in parallel on background threads. Returns the first `limit` ids of each text, concatenated; the
    /// end of each text's ids; and each text's total number of ids, an estimate if it was not encoded to its end.
    #[napi(
        catch_unwind,
        ts_return_type = "Promise<{ ids: Int32Array, ends: Int32Array, totals: Float64Array } | Failure>"
    )]
    pub fn encode_all<'env>(
        &self,
        env: &'env Env,
        texts: Vec<String>,
        add_special_tokens: bool,
        limit: Option<u32>,
    ) -> Result<Object<'env>> {
        let tokenizer = self.clone();
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        let encode = move || {
            let rows: Vec<TextStart> = cpu_use::run_parallel(|| {
                let encode = |text: &String| tokenizer.encode_beginning(text, add_special_tokens, limit);
                texts.par_iter().map(encode).collect::<engine::Result<_>>()
            })??;
            let mut ids = Vec::with_capacity(rows.iter().map(|row| row.ids.len()).sum());
            let (mut ends, mut totals) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
            for row in rows {
                ids.extend(row.ids);
                ends.push(ids.len() as i32);
                totals.push(row.total as f64);
            }
            Ok((ids, ends, totals))
        };
        background::run_for_object(env, "encode", encode, |env, object, (ids, ends, totals)| {
            object.set("ids", Int32ArraySlice::copy_from(env, &ids[..])?)?;
            object.set("ends", Int32ArraySlice::copy_from(env, &ends[..])?)?;
            object.set("totals", Float64ArraySlice::copy_from(env, &totals[..])?)
        })
    }

    /// Encodes whole texts without special tokens, in parallel on background threads. Returns the ids, concatenated;
    /// each token's start and end in its text, in UTF-16 units; and the end of each text's ids.
    #[napi(
        catch_unwind,
        ts_return_type = "Promise<{ ids: Int32Array, starts: Int32Array, ends: Int32Array, rows: Int32Array } | Failure>"
    )]
    pub fn encode_with_offsets<'env>(&self, env: &'env Env, texts: Vec<String>) -> Result<Object<'env>> {
        let tokenizer = self.clone();
        let encode = move || {
            let encode = |text: &String| encode_with_offsets(&tokenizer.inner, text).map_err(encode_error);
            let rows: Vec<TokenOffsets> =
                cpu_use::run_parallel(|| texts.par_iter().map(encode).collect::<engine::Result<_>>())??;
            let (mut all, mut ends) = (TokenOffsets::default(), Vec::with_capacity(rows.len()));
            for row in rows {
                all.ids.extend(row.ids);
                all.starts.extend(row.starts);
                all.ends.extend(row.ends);
                ends.push(all.ids.len() as i32);
            }
            Ok((all, ends))
        };
        background::run_for_object(env, "encode", encode, |env, object, (all, rows)| {
            let lists = [("ids", all.ids), ("starts", all.starts), ("ends", all.ends), ("rows", rows)];
            for (name, values) in lists {
                object.set(name, Int32ArraySlice::copy_from(env, &values[..])?)?;
            }
            Ok(())
        })
    }

    /// Encodes texts, or pairs of texts. Returns token types, offsets in UTF-16 units, words and sequences,
    /// concatenated by rows. Throws `ERR_OPTION` for a row that cannot be truncated to the length.
    #[napi(
        catch_unwind,
        ts_return_type = "{ ids: Int32Array, typeIds: Int32Array, starts: Int32Array, ends: Int32Array, words: Int32Array, sequences: Int32Array, rows: Int32Array }"
    )]
    pub fn encodings<'env>(
        &self,
        env: &'env Env,
        texts: Vec<String>,
        pairs: Option<Vec<String>>,
        options: EncodingOptions,
    ) -> Result<Object<'env>> {
        let encode = || encode_rows(&self.inner, &texts, pairs.as_deref(), &options);
        let all = background::catch_panic("encode", encode).map_err(to_js_error)?;
        let mut object = Object::new(env).map_err(wrap_napi_error)?;
        let lists = [
            ("ids", all.ids),
            ("typeIds", all.type_ids),
            ("starts", all.starts),
            ("ends", all.ends),
            ("words", all.words),
            ("sequences", all.sequences),
            ("rows", all.rows),
        ];
        for (name, values) in lists {
            let values = Int32ArraySlice::copy_from(env, &values[..]).map_err(wrap_napi_error)?;
            object.set(name, values).map_err(wrap_napi_error)?;
        }
        Ok(object)
    }

    /// Encodes a part of a text between two seams, without special tokens, in parallel on background threads. `first`:
    /// whether the text starts with this part.
    #[napi(catch_unwind, ts_return_type = "Promise<Int32Array | Failure>")]
    pub fn encode_part<'env>(&self, env: &'env Env, text: String, first: bool) -> Result<Object<'env>> {
        let tokenizer = self.clone();
        background::run_as_promise(
            env,
            "encode",
            move || tokenizer.encode_pieces(&text, first),
            |env, ids| {
                Ok(match ids {
                    Ok(ids) => Either::A(Int32ArraySlice::copy_from(&env, &ids[..])?),
                    Err(error) => Either::B::<_, Failure>(to_failure(error)),
                })
            },
        )
    }

    /// Returns the last position (in UTF-16 units) at which `text`, a part of a longer text, can be split without
    /// changing its ids; null if no such position is known.
    #[napi(catch_unwind)]
    pub fn last_seam(&self, text: String) -> Result<Option<u32>> {
        let seam = background::catch_panic("encode", || Ok(self.seams().find_last(&text)));
        Ok(seam.map_err(to_js_error)?.map(|at| text[..at].encode_utf16().count() as u32))
    }

    /// Whether the seams of this tokenizer are known. If not, a text must be encoded as a whole.
    #[napi(catch_unwind)]
    pub fn knows_seams(&self) -> Result<bool> {
        background::catch_panic("encode", || Ok(self.seams().can_find_seams())).map_err(to_js_error)
    }

    /// Returns the special tokens before and after a text.
    #[napi(catch_unwind)]
    pub fn frame(&self) -> Result<Vec<Vec<i32>>> {
        let frame = background::catch_panic("encode", || Ok(self.seams().frame())).map_err(to_js_error)?;
        Ok(vec![to_i32_ids(frame.0).collect(), to_i32_ids(frame.1).collect()])
    }

    /// Throws `ERR_INDEX` for an id that is not a token.
    #[napi(catch_unwind)]
    pub fn decode(&self, ids: &[i32], skip_special_tokens: bool) -> Result<String> {
        background::catch_panic("decode", || self.decode_ids(ids, skip_special_tokens)).map_err(to_js_error)
    }

    #[napi(catch_unwind)]
    pub fn token_to_id(&self, token: String) -> Option<u32> {
        self.inner.token_to_id(&token)
    }

    /// Returns the number of tokens, including added tokens.
    #[napi(catch_unwind)]
    pub fn vocab_size(&self) -> u32 {
        self.size() as u32
    }
}
