//! Splitters of text into words that are known not to look across a seam.
//!
//! A seam is between a plain character a and a space, or between a single line feed and a plain character. An
//! expression is known if all its alternatives are: none of them matches both a and the following space, and those that
//! look ahead match white space only, which a ends.

use serde_json::Value;

/// The relevant properties of a splitter.
#[derive(Clone, Copy, Default)]
pub struct Splitter {
    /// Words end at every seam before a space.
    pub splits: bool,
    /// Words also end after a single line feed.
    pub lines: bool,
    /// A space is added before a word that does not begin with one.
    pub prepends: bool,
    /// Bytes are mapped to other characters.
    pub bytes: bool,
    /// The replacement of spaces.
    pub space: Option<char>,
}

/// Parses a splitter's JSON; none if the splitter may look across a seam.
pub fn parse_splitter(json: &Value) -> Option<Splitter> {
    let words = Splitter { splits: true, lines: true, ..Splitter::default() };
    match json["type"].as_str()? {
        "Sequence" => json["pretokenizers"].as_array()?.iter().try_fold(Splitter::default(), |all, one| {
            let one = parse_splitter(one)?;
            Some(Splitter {
                splits: all.splits || one.splits,
                lines: all.lines || one.lines,
                prepends: all.prepends || one.prepends,
                bytes: all.bytes || one.bytes,
                space: one.space.or(all.space),
            })
        }),
        "ByteLevel" => {
            let splits = json["use_regex"].as_bool().unwrap_or(true);
            let prepends = json["add_prefix_space"].as_bool().unwrap_or(true);
            Some(Splitter { splits, lines: splits, prepends, bytes: true, space: None })
        }
        "Whitespace" | "WhitespaceSplit" | "BertPreTokenizer" => Some(words),
        "Metaspace" => {
            let scheme = json["prepend_scheme"].as_str().unwrap_or("always");
            Some(Splitter {
                splits: json["split"].as_bool().unwrap_or(true),
                lines: false,
                prepends: scheme != "never",
                bytes: false,
                space: json["replacement"].as_str()?.chars().next(),
            })
        }
        "Digits" => Some(Splitter::default()),
        "Punctuation" => matches!(json["behavior"].as_str()?, "Isolated" | "Contiguous" | "Removed")
            .then_some(Splitter::default()),
        "Split" => parse_split(json),
        _ => None,
    }
}

fn parse_split(json: &Value) -> Option<Splitter> {
    // Gemma's, after a normaliser that leaves no space.
    if json["pattern"]["String"] == " " && json["behavior"] == "MergedWithPrevious" {
        return None;
    }
    let kept = match (json["behavior"].as_str()?, json["invert"].as_bool().unwrap_or(false)) {
        ("Isolated", false) => true,
        ("Removed", true) => true,
        _ => return None,
    };
    let alternatives = split_alternatives(json["pattern"]["Regex"].as_str()?)?;
    if !alternatives.iter().all(|one| KNOWN.contains(&one.as_str())) {
        return None;
    }
    let splits = kept && alternatives.iter().any(|one| one == r"\s+");
    // If the expression matches nothing and only matches are kept, words are lost.
    if json["behavior"] == "Removed" && !splits {
        return None;
    }
    Some(Splitter { splits, lines: splits, ..Splitter::default() })
}

/// Alternatives in the expressions of GPT-2, GPT-4 and its successor, Llama 3, Qwen 2 and DeepSeek 3.
const KNOWN: [&str; 34] = [
    "'s",
    "'t",
    "'re",
    "'ve",
    "'m",
    "'ll",
    "'d",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "'(?i:[sdmt]|ll|ve|re)",
    r" ?\p{L}+",
    r"\p{L}+",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r" ?\p{N}+",
    r"\p{N}+",
    r"\p{N}",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]++[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    "[一-龥぀-ゟ゠-ヿ]+",
    r"\s*[\r\n]+",
    r"\s*[\r\n]",
    r"\s+(?!\S)",
    r"\s+",
    r"[0-9][0-9][0-9]",
];

/// Splits an expression into its top-level alternatives; none if its brackets are unbalanced.
fn split_alternatives(expression: &str) -> Option<Vec<String>> {
    let (mut all, mut one) = (Vec::new(), String::new());
    let (mut depth, mut class, mut escaped) = (0usize, false, false);
    for c in expression.chars() {
        if c == '|' && depth == 0 && !class && !escaped {
            all.push(std::mem::take(&mut one));
            continue;
        }
        one.push(c);
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' => class = false,
            '[' => class = true,
            _ if class => {}
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    all.push(one);
    (depth == 0 && !class && !escaped).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_are_split_at_the_top_level_only() {
        let split = |e| split_alternatives(e).unwrap();
        assert_eq!(split(r"a|(?i:b|c)|[|)]\||d"), ["a", "(?i:b|c)", r"[|)]\|", "d"]);
        assert!(
            split_alternatives("(a").is_none()
                && split_alternatives("a)").is_none()
                && split_alternatives("[a").is_none()
        );
        for one in KNOWN {
            assert_eq!(split(one), [one]);
        }
    }
}
