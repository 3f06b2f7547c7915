//! Incremental decoding of token ids.

use std::sync::Arc;

use lowrank_engine::error::{self as engine, Code, fail_code};
use napi_derive::napi;
use tokenizers::Tokenizer as Inner;

use crate::background;
use crate::error::{Result, to_js_error};
use crate::tokenizer::Tokenizer;

/// The character that invalid UTF-8 decodes to.
const REPLACEMENT: char = '\u{fffd}';
/// The most bytes of an incomplete UTF-8 character.
const INCOMPLETE: usize = 3;
/// Ids of the prompt's end that are decoded as context; also kept when a long run completed no character.
const CONTEXT: usize = 8;
/// The most ids that are decoded again: after a complete character, and within an incomplete one.
const WINDOW: usize = 16;
const LONGEST_WINDOW: usize = 64;

/// Decodes ids one by one at constant cost: decodes the last few ids again and returns the text that is new.
/// All pieces and `rest`, concatenated, equal the text of all ids decoded at once, with one exception. A run of
/// single-byte tokens that is invalid UTF-8 as a whole decodes to one replacement character for each byte; characters
/// of such a run that were complete when they were returned remain as they were.
#[napi]
pub struct DecodeStream {
    tokenizer: Arc<Inner>,
    skip_special_tokens: bool,
    /// The last ids.
    ids: Vec<u32>,
    /// The part of their text that has been returned.
    returned: String,
    /// The number of ids at the last complete character.
    complete: usize,
    held: bool,
}

impl DecodeStream {
    fn after_context(
        tokenizer: &Tokenizer,
        context: &[i32],
        skip_special_tokens: bool,
    ) -> engine::Result<DecodeStream> {
        let mut stream = DecodeStream {
            tokenizer: tokenizer.inner.clone(),
            skip_special_tokens,
            ids: Vec::new(),
            returned: String::new(),
            complete: 0,
            held: false,
        };
        let known: Vec<u32> = context.iter().filter_map(|id| stream.find_token(*id)).collect();
        let mut count = CONTEXT;
        loop {
            stream.ids = known[known.len().saturating_sub(count)..].to_vec();
            let text = stream.decode_ids(&stream.ids)?;
            // If the window begins within a character, it does not show how the following ones decode.
            if !text.contains(REPLACEMENT) || count >= known.len() {
                stream.returned = cut_incomplete(&text).into();
                stream.complete = stream.ids.len();
                return Ok(stream);
            }
            count *= 4;
        }
    }

    /// Returns the id if it is a token: a model may have more rows than its tokenizer has tokens.
    fn find_token(&self, id: i32) -> Option<u32> {
        u32::try_from(id).ok().filter(|id| self.tokenizer.id_to_token(*id).is_some())
    }

    fn decode_ids(&self, ids: &[u32]) -> engine::Result<String> {
        self.tokenizer
            .decode(ids, self.skip_special_tokens)
            .map_err(|e| fail_code(Code::Internal, format!("decode: {e}")))
    }

    fn push_id(&mut self, id: i32) -> engine::Result<String> {
        let Some(id) = self.find_token(id) else { return Ok(String::new()) };
        self.ids.push(id);
        let mut text = self.decode_ids(&self.ids)?;
        if !text.starts_with(&self.returned) {
            // A run of bytes proved to be invalid UTF-8: decode the ids after the returned characters separately.
            let end = if self.complete > 0 { self.complete } else { self.ids.len() - 1 };
            self.ids.drain(..end);
            self.complete = 0;
            self.returned.clear();
            text = self.decode_ids(&self.ids)?;
        }
        let certain = cut_incomplete(&text);
        let new = certain.get(self.returned.len()..).unwrap_or("").to_string();
        self.held = text.len() > certain.len();
        if certain.len() > self.returned.len() {
            self.returned.truncate(0);
            self.returned.push_str(certain);
        }
        self.drop_old_ids()?;
        Ok(new)
    }

    /// Drops ids that later ones do not need.
    fn drop_old_ids(&mut self) -> engine::Result<()> {
        if self.held {
            if self.ids.len() > LONGEST_WINDOW {
                self.ids.drain(..self.ids.len() - CONTEXT);
                self.returned = cut_incomplete(&self.decode_ids(&self.ids)?).into();
                self.complete = 0;
            }
            return Ok(());
        }
        let before = std::mem::replace(&mut self.complete, self.ids.len());
        if self.ids.len() > WINDOW {
            let last = self.decode_ids(&self.ids[before..])?;
            // A window must not begin with a lone space, since decoding may drop a text's first space.
            if !last.trim().is_empty() || self.ids.len() > LONGEST_WINDOW {
                self.ids.drain(..before);
                self.complete = self.ids.len();
                self.returned = last;
            }
        }
        Ok(())
    }

    fn take_remaining(&mut self) -> engine::Result<String> {
        let text = self.decode_ids(&self.ids)?;
        self.held = false;
        match text.strip_prefix(&self.returned) {
            Some(rest) => Ok(rest.into()),
            None => self.decode_ids(&self.ids[self.complete..]),
        }
    }
}

/// Returns `text` without a possibly incomplete last character.
fn cut_incomplete(text: &str) -> &str {
    let mut certain = text;
    for _ in 0..INCOMPLETE {
        certain = certain.strip_suffix(REPLACEMENT).unwrap_or(certain);
    }
    certain
}

#[napi]
impl Tokenizer {
    /// Creates a stream that decodes the ids after `context`.
    #[napi(catch_unwind)]
    pub fn decode_stream(&self, context: &[i32], skip_special_tokens: bool) -> Result<DecodeStream> {
        background::catch_panic("decode", || DecodeStream::after_context(self, context, skip_special_tokens))
            .map_err(to_js_error)
    }
}

#[napi]
impl DecodeStream {
    /// Returns the text that `id` completes; empty if `id` is not a token.
    #[napi(catch_unwind)]
    pub fn push(&mut self, id: i32) -> Result<String> {
        background::catch_panic("decode", || self.push_id(id)).map_err(to_js_error)
    }

    /// Whether the last ids may form an incomplete character.
    #[napi(catch_unwind)]
    pub fn held(&self) -> bool {
        self.held
    }

    /// Returns the text that was held back; call it after the last id.
    #[napi(catch_unwind)]
    pub fn rest(&mut self) -> Result<String> {
        background::catch_panic("decode", || self.take_remaining()).map_err(to_js_error)
    }
}
