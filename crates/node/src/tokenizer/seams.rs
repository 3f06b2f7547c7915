//! Seams: positions at which a text can be split so that the ids of its pieces, concatenated, are the ids of the whole
//! text.
//!
//! A tokenizer finds added tokens, normalises the text between them, splits it into words and encodes each word
//! separately. A position is a seam if none of these steps looks across it:
//!
//! - *Words*: between a letter, digit or ASCII mark and a space; between a single line feed and a letter or digit.
//!   Every splitter that this module knows ends a word there, and none of their expressions matches or looks ahead
//!   across it.
//! - *Vocabulary*: where nothing splits into words (SentencePiece's BPE), between two characters that are tokens and
//!   are not adjacent in any token. A merge across the position would create a token that contains both.
//!
//! In addition no added token may touch the position. A prefix of the normaliser (`Prepend`) applies to the text's
//! first piece only. A tokenizer with any other component has no known seams.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::{
    Encoding, Model, NormalizedString, Normalizer, OffsetType, PreTokenizer, Result, Tokenizer as Inner,
};

use super::splitters::{self, Splitter};

/// The seams of a tokenizer.
pub struct Seams {
    rule: Rule,
    /// Texts of the added tokens.
    added: Vec<String>,
    /// The length of the longest added token, in bytes.
    longest: usize,
    /// The normaliser of all pieces but the first, if it differs.
    middle: Option<Option<NormalizerWrapper>>,
    /// Special tokens before and after a text.
    frame: (Vec<u32>, Vec<u32>),
}

enum Rule {
    Words {
        /// Whether a single line feed ends a word, and words get no prefix.
        lines: bool,
    },
    Vocabulary {
        /// The character that a space is normalised to; other characters do not change.
        space: char,
        /// Characters that are tokens.
        known: HashSet<char>,
        /// Pairs of adjacent characters in tokens.
        pairs: HashSet<(char, char)>,
        /// Whether pieces begin with a space.
        spaces: bool,
    },
    Unknown,
}

/// The relevant properties of a normaliser.
struct NormalizerProperties {
    /// Whether it adds a prefix to a text.
    prepends: bool,
    space: char,
    /// Whether it changes nothing but spaces.
    spaces_alone: bool,
}

impl Seams {
    pub fn for_tokenizer(inner: &Inner) -> Seams {
        let added: Vec<String> = inner.get_added_tokens_decoder().into_values().map(|t| t.content).collect();
        let normalizer = inner.get_normalizer().map(|n| serde_json::to_value(n).unwrap_or(json!({})));
        let frame = find_frame(inner);
        let rule = match (describe_normalizer(normalizer.as_ref()), &frame) {
            (Some(normal), Some(_)) => find_rule(inner, &normal, &added),
            _ => Rule::Unknown,
        };
        let middle = normalizer.as_ref().and_then(remove_prepend);
        let longest = added.iter().map(String::len).max().unwrap_or(0);
        Seams { rule, added, longest, middle, frame: frame.unwrap_or_default() }
    }

    /// Whether seams can be found.
    pub fn can_find_seams(&self) -> bool {
        !matches!(self.rule, Rule::Unknown)
    }

    /// Returns the last seam in `from + 1..=to`.
    pub fn find_last_within(&self, text: &str, from: usize, to: usize) -> Option<usize> {
        (from + 1..=to.min(text.len().saturating_sub(1))).rev().find(|at| self.is_seam(text, *at))
    }

    /// Returns the last seam of a text that continues, far enough from its end that no added token that begins in the
    /// text reaches the seam.
    pub fn find_last(&self, text: &str) -> Option<usize> {
        self.find_last_within(text, 0, text.len().saturating_sub(self.longest + 1))
    }

    /// Returns the first seam after `from`.
    fn find_first_after(&self, text: &str, from: usize) -> Option<usize> {
        (from + 1..text.len()).find(|at| self.is_seam(text, *at))
    }

    /// Returns the end of a piece of about `size` bytes that begins at `from`.
    pub fn find_piece_end(&self, text: &str, from: usize, size: usize) -> usize {
        if !self.can_find_seams() || text.len() - from <= size + size / 2 {
            return text.len();
        }
        let near = from + size;
        self.find_last_within(text, from + size / 2, near)
            .or_else(|| self.find_first_after(text, near))
            .unwrap_or(text.len())
    }

    /// Splits a text into pieces of about `size` bytes; one piece if it has no seam.
    pub fn split_pieces<'a>(&self, text: &'a str, size: usize) -> Vec<&'a str> {
        let (mut pieces, mut start) = (Vec::new(), 0);
        while start < text.len() {
            let end = self.find_piece_end(text, start, size);
            pieces.push(&text[start..end]);
            start = end;
        }
        pieces
    }

    fn is_seam(&self, text: &str, at: usize) -> bool {
        if !text.is_char_boundary(at) {
            return false;
        }
        let (before, after) = text.split_at(at);
        let mut back = before.chars().rev();
        let (Some(a), Some(b)) = (back.next(), after.chars().next()) else { return false };
        let fits = match &self.rule {
            Rule::Words { lines } => {
                (is_plain(a) && b == ' ')
                    || (*lines
                        && a == '\n'
                        && is_plain(b)
                        && b.is_alphanumeric()
                        && back.next().is_some_and(is_plain))
            }
            Rule::Vocabulary { space, known, pairs, spaces } => {
                let b_ = if b == ' ' { *space } else { b };
                (b == ' ' || !(*spaces || b.is_whitespace()))
                    && !a.is_whitespace()
                    && known.contains(&a)
                    && known.contains(&b_)
                    && !pairs.contains(&(a, b_))
            }
            Rule::Unknown => false,
        };
        fits && !self.touches_added_token(text, at)
    }

    /// Whether an added token contains, ends at or begins at `at`. Ignores case, since a normaliser may.
    fn touches_added_token(&self, text: &str, at: usize) -> bool {
        let mut from = at.saturating_sub(self.longest);
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let mut to = (at + self.longest).min(text.len());
        while !text.is_char_boundary(to) {
            to += 1;
        }
        let window = text[from..to].to_lowercase();
        self.added.iter().any(|token| window.contains(&token.to_lowercase()))
    }

    /// Encodes a piece without special tokens. `first`: whether the text begins with it.
    pub fn encode(&self, inner: &Inner, piece: &str, first: bool) -> Result<Vec<u32>> {
        let Some(middle) = self.middle.as_ref().filter(|_| !first) else {
            return Ok(inner.encode_fast(piece, false)?.get_ids().to_vec());
        };
        let normalizer = MiddleNormalizer { all: inner.get_normalizer(), start: middle.as_ref() };
        let mut words = inner.get_added_vocabulary().extract_and_normalize(Some(&normalizer), piece);
        if let Some(splitter) = inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut words)?;
        }
        words.tokenize(|word| inner.get_model().tokenize(word.get()))?;
        Ok(words.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }

    /// Returns the special tokens before and after a text.
    pub fn frame(&self) -> (&[u32], &[u32]) {
        (&self.frame.0, &self.frame.1)
    }
}

/// A normaliser that treats a piece's start as the middle of a text.
struct MiddleNormalizer<'a> {
    all: Option<&'a NormalizerWrapper>,
    start: Option<&'a NormalizerWrapper>,
}

impl Normalizer for MiddleNormalizer<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
        let normalizer = if text.offsets_original().0 == 0 { self.start } else { self.all };
        normalizer.map_or(Ok(()), |n| n.normalize(text))
    }
}

/// Whether `c` is an ASCII mark, or a letter or digit that no normaliser joins to the preceding character.
fn is_plain(c: char) -> bool {
    c.is_ascii_graphic()
        || (c.is_alphanumeric()
            && matches!(c, '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{481}' | '\u{48a}'..='\u{52f}'
                | '\u{5d0}'..='\u{5ea}' | '\u{620}'..='\u{64a}' | '\u{904}'..='\u{939}'
                | '\u{e01}'..='\u{e30}' | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}'
                | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'))
}

fn find_rule(inner: &Inner, normal: &NormalizerProperties, added: &[String]) -> Rule {
    let splitter = match inner.get_pre_tokenizer() {
        Some(p) => splitters::parse_splitter(&serde_json::to_value(p).unwrap_or(json!({}))),
        None => Some(Splitter::default()),
    };
    let Some(splitter) = splitter else { return Rule::Unknown };
    let model = inner.get_model();
    if matches!(model, ModelWrapper::BPE(bpe) if bpe.dropout.is_some_and(|p| p > 0.0)) {
        return Rule::Unknown;
    }
    if splitter.splits {
        if normal.space != ' ' {
            return Rule::Unknown;
        }
        return Rule::Words { lines: splitter.lines && !splitter.prepends };
    }
    let ModelWrapper::BPE(bpe) = model else { return Rule::Unknown };
    let affix = |a: &Option<String>| a.as_ref().is_some_and(|a| !a.is_empty());
    if affix(&bpe.continuing_subword_prefix)
        || affix(&bpe.end_of_word_suffix)
        || bpe.ignore_merges
        || !normal.spaces_alone
        || splitter.bytes
    {
        return Rule::Unknown;
    }
    let space = splitter.space.unwrap_or(normal.space);
    let (mut known, mut pairs) = (HashSet::new(), HashSet::new());
    let spaced = added.iter().map(|token| token.replace(' ', &space.to_string()));
    for token in bpe.get_vocab().into_keys().chain(added.iter().cloned()).chain(spaced) {
        let mut chars = token.chars();
        let Some(mut last) = chars.next() else { continue };
        if token.len() == last.len_utf8() && bpe.token_to_id(&token).is_some() {
            known.insert(last);
        }
        for c in chars {
            pairs.insert((last, c));
            last = c;
        }
    }
    Rule::Vocabulary { space, known, pairs, spaces: splitter.prepends }
}

/// Returns the properties of a normaliser; none if it may look across a seam.
fn describe_normalizer(normalizer: Option<&Value>) -> Option<NormalizerProperties> {
    let nothing = NormalizerProperties { prepends: false, space: ' ', spaces_alone: true };
    let Some(normalizer) = normalizer else { return Some(nothing) };
    match normalizer["type"].as_str()? {
        "Sequence" => normalizer["normalizers"].as_array()?.iter().try_fold(nothing, |all, one| {
            let one = describe_normalizer(Some(one))?;
            Some(NormalizerProperties {
                prepends: all.prepends || one.prepends,
                space: if one.space == ' ' { all.space } else { one.space },
                spaces_alone: all.spaces_alone && one.spaces_alone,
            })
        }),
        "Prepend" => Some(NormalizerProperties { prepends: true, ..nothing }),
        "Replace" => {
            let mut content = normalizer["content"].as_str()?.chars();
            match (normalizer["pattern"]["String"].as_str()?, content.next(), content.next()) {
                (" ", Some(space), None) => Some(NormalizerProperties { space, ..nothing }),
                _ => None,
            }
        }
        "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "StripAccents" | "BertNormalizer" => {
            Some(NormalizerProperties { spaces_alone: false, ..nothing })
        }
        _ => None,
    }
}

/// Returns the normaliser without its prefix; none if it adds no prefix.
fn remove_prepend(normalizer: &Value) -> Option<Option<NormalizerWrapper>> {
    if !describe_normalizer(Some(normalizer))?.prepends {
        return None;
    }
    match normalizer["type"].as_str()? {
        "Sequence" => {
            let rest: Vec<&Value> =
                normalizer["normalizers"].as_array()?.iter().filter(|n| n["type"] != "Prepend").collect();
            Some(Some(serde_json::from_value(json!({ "type": "Sequence", "normalizers": rest })).ok()?))
        }
        _ => Some(None),
    }
}

/// Returns the special tokens before and after a text, which the encoding of a sample text shows.
fn find_frame(inner: &Inner) -> Option<(Vec<u32>, Vec<u32>)> {
    let plain = inner.encode_fast("a", false).ok()?;
    let mark: Encoding = plain.clone();
    let whole = inner.post_process(mark, None, true).ok()?;
    let (plain, whole) = (plain.get_ids(), whole.get_ids());
    if plain.is_empty() {
        return None;
    }
    let at = whole.windows(plain.len()).position(|ids| ids == plain)?;
    Some((whole[..at].to_vec(), whole[at + plain.len()..].to_vec()))
}
