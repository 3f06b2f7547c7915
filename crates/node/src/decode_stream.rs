//! Text of token ids that come one by one.

use std::sync::Arc;

use lowrank_engine::error::{self as engine, Code, fail_code};
use napi_derive::napi;
use tokenizers::Tokenizer as Inner;

use crate::background;
use crate::error::{Result, thrown};
use crate::tokenizer::Tokenizer;

/// What bytes that are no text decode to.
const REPLACEMENT: char = '\u{fffd}';
/// Bytes of a letter that its last one may still complete.
const INCOMPLETE: usize = 3;
/// Ids of a prompt that its end is decoded with, and that are kept where no letter was complete for long.
const CONTEXT: usize = 8;
/// Ids that are decoded again at most, where the last ones are whole letters, and where they are not.
const WINDOW: usize = 16;
const LONGEST_WINDOW: usize = 64;

/// Decodes ids as they come, each at the same cost however many there were: the last few are decoded again, and what
/// they give more than before is the new text. The pieces and `rest` together are what decoding all ids at once
/// gives. One difference: tokens that stand for single bytes, in a run of them that as a whole is no text, decode to
/// as many replacement characters; letters of such a run that were whole when they came stay.
#[napi]
pub struct DecodeStream {
    tokenizer: Arc<Inner>,
    skip_special_tokens: bool,
    /// The last ids.
    ids: Vec<u32>,
    /// What of their text has been given.
    given: String,
    /// Ids of which the text ended in a whole letter when it was given.
    whole: usize,
    held: bool,
}

impl DecodeStream {
    fn after(
        tokenizer: &Tokenizer,
        context: &[i32],
        skip_special_tokens: bool,
    ) -> engine::Result<DecodeStream> {
        let mut stream = DecodeStream {
            tokenizer: tokenizer.inner.clone(),
            skip_special_tokens,
            ids: Vec::new(),
            given: String::new(),
            whole: 0,
            held: false,
        };
        let known: Vec<u32> = context.iter().filter_map(|id| stream.known(*id)).collect();
        let mut count = CONTEXT;
        loop {
            stream.ids = known[known.len().saturating_sub(count)..].to_vec();
            let text = stream.decoded(&stream.ids)?;
            // A window that begins within a letter says nothing of those after it.
            if !text.contains(REPLACEMENT) || count >= known.len() {
                stream.given = certain(&text).into();
                stream.whole = stream.ids.len();
                return Ok(stream);
            }
            count *= 4;
        }
    }

    /// The id where it is a token: a model may have more rows than its tokenizer has tokens.
    fn known(&self, id: i32) -> Option<u32> {
        u32::try_from(id).ok().filter(|id| self.tokenizer.id_to_token(*id).is_some())
    }

    fn decoded(&self, ids: &[u32]) -> engine::Result<String> {
        self.tokenizer
            .decode(ids, self.skip_special_tokens)
            .map_err(|e| fail_code(Code::Internal, format!("decode: {e}")))
    }

    fn pushed(&mut self, id: i32) -> engine::Result<String> {
        let Some(id) = self.known(id) else { return Ok(String::new()) };
        self.ids.push(id);
        let mut text = self.decoded(&self.ids)?;
        if !text.starts_with(&self.given) {
            // A run of bytes has turned out to be no text: what follows the letters given stands by itself.
            let told = if self.whole > 0 { self.whole } else { self.ids.len() - 1 };
            self.ids.drain(..told);
            self.whole = 0;
            self.given.clear();
            text = self.decoded(&self.ids)?;
        }
        let certain = certain(&text);
        let new = certain.get(self.given.len()..).unwrap_or("").to_string();
        self.held = text.len() > certain.len();
        if certain.len() > self.given.len() {
            self.given.truncate(0);
            self.given.push_str(certain);
        }
        self.slide()?;
        Ok(new)
    }

    /// Lets go of ids that the next ones do not need.
    fn slide(&mut self) -> engine::Result<()> {
        if self.held {
            if self.ids.len() > LONGEST_WINDOW {
                self.ids.drain(..self.ids.len() - CONTEXT);
                self.given = certain(&self.decoded(&self.ids)?).into();
                self.whole = 0;
            }
            return Ok(());
        }
        let before = std::mem::replace(&mut self.whole, self.ids.len());
        if self.ids.len() > WINDOW {
            let last = self.decoded(&self.ids[before..])?;
            // A text that begins with these ids must not begin with the next: its first space may be dropped.
            if !last.trim().is_empty() || self.ids.len() > LONGEST_WINDOW {
                self.ids.drain(..before);
                self.whole = self.ids.len();
                self.given = last;
            }
        }
        Ok(())
    }

    fn remaining(&mut self) -> engine::Result<String> {
        let text = self.decoded(&self.ids)?;
        self.held = false;
        match text.strip_prefix(&self.given) {
            Some(rest) => Ok(rest.into()),
            None => self.decoded(&self.ids[self.whole..]),
        }
    }
}

/// `text` without what may be the beginning of a letter.
fn certain(text: &str) -> &str {
    let mut certain = text;
    for _ in 0..INCOMPLETE {
        certain = certain.strip_suffix(REPLACEMENT).unwrap_or(certain);
    }
    certain
}

#[napi]
impl Tokenizer {
    /// Decodes what comes after `context`.
    #[napi(catch_unwind)]
    pub fn decode_stream(&self, context: &[i32], skip_special_tokens: bool) -> Result<DecodeStream> {
        background::guarded("decode", || DecodeStream::after(self, context, skip_special_tokens))
            .map_err(thrown)
    }
}

#[napi]
impl DecodeStream {
    /// The text that `id` completes. An id that is no token has none.
    #[napi(catch_unwind)]
    pub fn push(&mut self, id: i32) -> Result<String> {
        background::guarded("decode", || self.pushed(id)).map_err(thrown)
    }

    /// Whether the last ids may be a part of a letter.
    #[napi(catch_unwind)]
    pub fn held(&self) -> bool {
        self.held
    }

    /// What was held back, and is all that will come.
    #[napi(catch_unwind)]
    pub fn rest(&mut self) -> Result<String> {
        background::guarded("decode", || self.remaining()).map_err(thrown)
    }
}
