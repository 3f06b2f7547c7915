//! The header: 8 bytes of length, JSON of that length, then the tensors' bytes without gaps.
//!
//! Source: https://github.com/huggingface/safetensors, "Format". Files that the reference implementation accepts are
//! accepted, except those with duplicate keys or with shapes whose strides overflow.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{Error as UnknownName, StrDeserializer};
use serde::de::{IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Dtype;
use crate::format::json::{self, Fault, Unique, check_unique};
use crate::format::quote;
use crate::shape::Shape;

/// Bytes of the length before the header.
pub(super) const PREFIX: usize = 8;
/// The format's limit.
pub(super) const MAX_HEADER: u64 = 100_000_000;
pub(super) const METADATA: &str = "__metadata__";

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Shape,
    /// Bytes from the file's start.
    pub offset: u64,
    pub bytes: u64,
}

/// A checked header: tensors in the order of their bytes, and the metadata.
#[derive(Debug)]
pub(super) struct Header {
    pub entries: Vec<Entry>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's members, unchecked.
struct Members {
    infos: BTreeMap<String, Info>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outermost;

        impl<'de> Visitor<'de> for Outermost {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut infos = BTreeMap::new();
                let mut metadata = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == METADATA {
                        check_unique(&key, metadata.is_some())?;
                        metadata = Some(map.next_value::<Option<Unique<String>>>()?);
                    } else {
                        check_unique(&key, infos.contains_key(&key))?;
                        infos.insert(key, map.next_value()?);
                    }
                }
                let metadata = metadata.flatten().map_or_else(BTreeMap::new, |m| m.0);
                Ok(Members { infos, metadata })
            }
        }

        deserializer.deserialize_map(Outermost)
    }
}

/// Parses and checks the header of a file. Every entry is within `file`.
pub(super) fn parse(file: &[u8]) -> Result<Header, Fault> {
    let at = |offset: usize, what: String| Err(Fault { offset, what });
    let Some((length, rest)) = file.split_first_chunk::<PREFIX>() else {
        let what = "cut off: 8 bytes that give the header's length were expected";
        return at(file.len(), what.into());
    };
    let length = u64::from_le_bytes(*length);
    if let Some(what) = detect_format(file).filter(|_| length > MAX_HEADER) {
        return at(0, format!("a safetensors file was expected, this is {what}"));
    }
    if length > MAX_HEADER {
        return at(0, format!("a header of at most {MAX_HEADER} bytes was expected, this says {length}"));
    }
    let Some((text, data)) = rest.split_at_checked(length as usize) else {
        let what = format!("cut off: a header of {length} bytes was expected, {} are there", rest.len());
        return at(file.len(), what);
    };
    let Members { infos, metadata } = json::parse(text)
        .map_err(|fault| Fault { offset: PREFIX + fault.offset, what: format!("header: {}", fault.what) })?;
    let start = (PREFIX + text.len()) as u64;
    let entries = check_layout(infos, start, data.len() as u64).map_err(|(name, what)| {
        let key = json::key_offset(std::str::from_utf8(text).unwrap_or_default(), &name);
        Fault { offset: PREFIX + key, what: format!("tensor {}: {what}", quote(&name)) }
    })?;
    let end = entries.last().map_or(start, |e| e.offset + e.bytes);
    let beyond = file.len() as u64 - end;
    if beyond > 0 {
        return at(end as usize, format!("the file's end was expected, {beyond} bytes follow"));
    }
    Ok(Header { entries, metadata })
}

/// Checks each tensor, and that together they cover the `data` bytes from `start` on without gaps or overlaps; bytes
/// after the last tensor are allowed. An error has the tensor's name.
fn check_layout(
    infos: BTreeMap<String, Info>,
    start: u64,
    data: u64,
) -> Result<Vec<Entry>, (String, String)> {
    let mut infos: Vec<(String, Info)> = infos.into_iter().collect();
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut entries: Vec<Entry> = Vec::with_capacity(infos.len());
    let mut covered = 0;
    for (name, info) in infos {
        let (begin, end) = info.data_offsets;
        let (dtype, shape, bytes) = match parse_info(&info) {
            Ok(size) => size,
            Err(what) => return Err((name, what)),
        };
        let before = entries.last().map_or("the header".into(), |e| quote(&e.name));
        let what = if end < begin || end - begin != bytes {
            format!("{bytes} bytes were expected for {dtype} {shape}, its offsets are [{begin}, {end}]")
        } else if begin > covered {
            format!("offset {covered} was expected, right after {before}, this begins at {begin}")
        } else if begin < covered {
            format!("offset {covered} was expected, this begins at {begin} and overlaps {before}")
        } else if end > data {
            format!("ends at byte {} and the file at {}: cut off?", start.saturating_add(end), start + data)
        } else {
            covered = end;
            entries.push(Entry { name, dtype, shape, offset: start + begin, bytes });
            continue;
        };
        return Err((name, what));
    }
    Ok(entries)
}

/// A tensor's dtype, shape and size in bytes.
fn parse_info(info: &Info) -> Result<(Dtype, Shape, u64), String> {
    let name: StrDeserializer<UnknownName> = info.dtype.as_str().into_deserializer();
    let dtype = Dtype::deserialize(name).map_err(|_| format!("unknown dtype {}", quote(&info.dtype)))?;
    let dims = &info.shape;
    // Empty tensors, too: their strides are products of the other sizes.
    let elements = dims.iter().try_fold(1u64, |n, d| n.checked_mul((*d).max(1)));
    let bits = elements.and_then(|n| n.checked_mul(dtype.bitsize() as u64));
    let Some(bits) = bits else {
        return Err(format!("the size of {dtype} {dims:?} overflows"));
    };
    let bits = if dims.contains(&0) { 0 } else { bits };
    if bits % 8 != 0 {
        return Err(format!("{dtype} {dims:?} does not end at a whole byte"));
    }
    let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
    Ok((dtype, Shape::new(&dims), bits / 8))
}

/// The format of a file that is not safetensors, by its first bytes.
fn detect_format(file: &[u8]) -> Option<&'static str> {
    const BEGINNINGS: [(&[u8], &str); 5] = [
        (b"version https://git-lfs", "a Git LFS pointer: the file itself was not downloaded"),
        (b"PK\x03\x04", "a zip, such as PyTorch's own format"),
        (b"\x80", "a pickle, such as PyTorch's old format"),
        (b"GGUF", "GGUF"),
        (b"<", "markup, perhaps an error page of a download"),
    ];
    BEGINNINGS.iter().find(|(begin, _)| file.starts_with(begin)).map(|(_, what)| *what)
}
