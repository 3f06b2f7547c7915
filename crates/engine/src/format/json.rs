//! JSON in files: duplicate keys are errors, and errors have the byte offset.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::quote;
use crate::error::{Code, Error};

/// An object's members by key; a duplicate key is an error.
#[derive(Debug)]
pub(super) struct Unique<T>(pub BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    check_unique(&key, members.contains_key(&key))?;
                    members.insert(key, map.next_value()?);
                }
                Ok(Unique(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// Returns an error for a duplicate key.
pub(super) fn check_unique<E: serde::de::Error>(key: &str, seen: bool) -> Result<(), E> {
    if seen { Err(E::custom(format!("duplicate key {}", quote(key)))) } else { Ok(()) }
}

/// An error in a file, with its byte offset.
#[derive(Debug)]
pub(super) struct Fault {
    pub offset: usize,
    pub what: String,
}

impl Fault {
    /// The error for the user: `ERR_FILE_FORMAT` with the file and the byte.
    pub fn into_error(self, path: &Path) -> Error {
        let Fault { offset, what } = self;
        Error::new(Code::FileFormat, format!("{}: at byte {offset}: {what}", path.display()))
    }
}

/// Parses all of `bytes`. Offsets count from its start.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Fault { offset: e.valid_up_to(), what: "not UTF-8, so not JSON".into() })?;
    serde_json::from_str(text).map_err(|e| {
        let before: usize = text.split_inclusive('\n').take(e.line().saturating_sub(1)).map(str::len).sum();
        let suffix = format!(" at line {} column {}", e.line(), e.column());
        let what = e.to_string();
        let what = what.strip_suffix(&suffix).unwrap_or(&what).replace('\n', " ");
        let offset = if e.is_eof() { text.len() } else { before + e.column().saturating_sub(1) };
        Fault { offset, what }
    })
}

/// The offset of `key` of the outermost object in `text`, which is valid JSON.
pub(super) fn key_offset(text: &str, key: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0, 0);
    while i < bytes.len() {
        match bytes[i] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let start = i;
                i += 1;
                while bytes.get(i).is_some_and(|b| *b != b'"') {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
                let found = text.get(start..=i).and_then(|s| serde_json::from_str::<String>(s).ok());
                if depth == 1 && found.as_deref() == Some(key) {
                    return start;
                }
            }
            _ => {}
        }
        i += 1;
    }
    0
}
