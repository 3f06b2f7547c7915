//! The positions of tokens in their text.

use tokenizers::{Model, OffsetType, PreTokenizer, Result, Tokenizer as Inner};

/// Token ids of a text without special tokens, with each token's start and end in UTF-16 units.
#[derive(Default)]
pub struct TokenOffsets {
    pub ids: Vec<i32>,
    pub starts: Vec<i32>,
    pub ends: Vec<i32>,
}

/// Encodes a whole text. A token's range covers all its characters, including white space that a post-processor would
/// trim. If several tokens form one character, each has the range of the whole character.
pub fn encode_with_offsets(inner: &Inner, text: &str) -> Result<TokenOffsets> {
    let mut words = inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text);
    if let Some(splitter) = inner.get_pre_tokenizer() {
        splitter.pre_tokenize(&mut words)?;
    }
    words.tokenize(|word| inner.get_model().tokenize(word.get()))?;
    let encoding = words.into_encoding(None, 0, OffsetType::Byte)?;
    let units = find_utf16_offsets(text);
    let at = |byte: usize| units[byte.min(text.len())];
    let mut placed = TokenOffsets::default();
    for (id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
        let (mut start, mut end) = (start.min(text.len()), end.min(text.len()));
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        placed.ids.push(*id as i32);
        placed.starts.push(at(start));
        placed.ends.push(at(end));
    }
    Ok(placed)
}

/// Returns the number of UTF-16 units before each character's first byte, and before the text's end.
fn find_utf16_offsets(text: &str) -> Vec<i32> {
    let mut units = vec![0; text.len() + 1];
    let mut count = 0;
    for (at, c) in text.char_indices() {
        units[at] = count;
        count += c.len_utf16() as i32;
    }
    units[text.len()] = count;
    units
}
