//! The header: what the file says of itself, its metadata, and where its tensors lie.
//!
//! Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and gguf.cpp for what is taken. Versions 2 and 3
//! differ by the order of bytes alone, which 3 admits to be high first; such files are refused.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::cursor::Cursor;
use super::metadata::{self, MetaValue};
use crate::dtype::DType;
use crate::format::json::Fault;
use crate::format::quoted;
use crate::quant::BlockType;
use crate::shape::Shape;

const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
const MOST_DIMS: u32 = 4;
/// Bytes of the shortest key with a value, and of the shortest tensor: lengths, types, places.
const KEY_BYTES: usize = 8 + 4 + 1;
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    Plain(DType),
    Blocks(BlockType),
}

impl TensorType {
    /// Elements that are stored together, and the bytes that they take.
    fn unit(self) -> (usize, usize) {
        match self {
            TensorType::Plain(dtype) => (1, dtype.bytes()),
            TensorType::Blocks(kind) => (kind.elements(), kind.bytes()),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TensorType::Plain(dtype) => dtype.fmt(f),
            TensorType::Blocks(kind) => kind.fmt(f),
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub kind: TensorType,
    /// Outermost first; a file has them in the other order.
    pub shape: Shape,
    /// Bytes from the file's start.
    pub offset: u64,
    pub bytes: u64,
}

/// What a checked header says: tensors in the order of the file, and where the value of each key stands.
#[derive(Debug)]
pub(super) struct Header {
    pub entries: Vec<Entry>,
    pub keys: BTreeMap<String, usize>,
}

/// Reads and checks the header of a whole file. Every entry lies within `file`, and no two overlap.
pub(super) fn parse(file: &[u8]) -> Result<Header, Fault> {
    let mut cursor = Cursor::new(file, 0);
    version(&mut cursor)?;
    let tensors = cursor.clone();
    cursor.count(TENSOR_BYTES, "the number of tensors")?;
    let pairs = cursor.count(KEY_BYTES, "the number of metadata keys")?;
    let mut keys = BTreeMap::new();
    for _ in 0..pairs {
        let before = cursor.clone();
        let key = cursor.text("a metadata key")?;
        if keys.insert(key.to_string(), cursor.offset()).is_some() {
            return before.fault(format!("the key {} stands twice", quoted(key)));
        }
        metadata::check(&mut cursor)
            .map_err(|fault| Fault { what: format!("{}: {}", quoted(key), fault.what), ..fault })?;
    }
    let alignment = alignment(file, &keys)?;
    // Once more, since only now it is known how much of the file is left for them.
    let count = tensors.clone().count(TENSOR_BYTES, "the number of tensors")?;
    if count > cursor.left() / TENSOR_BYTES {
        let what =
            format!("the number of tensors says {count}, and the rest of the file has no room for these");
        return tensors.fault(what);
    }
    let mut names = HashSet::new();
    let mut stated = Vec::new();
    for _ in 0..count {
        let before = cursor.clone();
        let (name, kind, shape, place, bytes) = tensor(&mut cursor)?;
        if !names.insert(name) {
            return before.fault(format!("the tensor {} stands twice", quoted(name)));
        }
        stated.push((before.offset(), place, Entry { name: name.into(), kind, shape, offset: 0, bytes }));
    }
    let start = (cursor.offset() as u64).next_multiple_of(alignment);
    let entries = place(stated, start, alignment, file.len() as u64)?;
    Ok(Header { entries, keys })
}

/// Goes past the magic and the version.
fn version(cursor: &mut Cursor) -> Result<(), Fault> {
    let start = cursor.clone();
    let magic = cursor.bytes(4, "the beginning \"GGUF\"")?;
    if magic != MAGIC {
        let what = match magic {
            b"vers" => ": this is a Git LFS pointer, and the file itself was not downloaded",
            b"ggml" | b"ggjt" | b"ggmf" | b"tjgg" | b"lmgg" => {
                ": this is an older format; convert the model anew"
            }
            [b'<', ..] => ": this is markup, perhaps an error page of a download",
            _ => "",
        };
        let is = String::from_utf8_lossy(magic);
        return start
            .fault(format!("a GGUF file was expected, which begins with \"GGUF\", not {is:?}{what}"));
    }
    let before = cursor.clone();
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(()),
        0 | 1 => before.fault(format!("version 2 or 3 was expected, this is {version}; convert the model anew")),
        _ if (1..=0xffff).contains(&version.swap_bytes()) => before.fault(
            "numbers with their low bytes first were expected, this file was made for machines that have the high \
             bytes first (big-endian); convert the model anew without --bigendian",
        ),
        _ => before.fault(format!("version 2 or 3 was expected, this is {version}, which is newer or damaged")),
    }
}

fn alignment(file: &[u8], keys: &BTreeMap<String, usize>) -> Result<u64, Fault> {
    let Some(at) = keys.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    let cursor = Cursor::new(file, *at);
    match metadata::read(&mut cursor.clone())? {
        MetaValue::Unsigned(n) if n.is_power_of_two() && u32::try_from(n).is_ok() => Ok(n),
        other => {
            let is = match other {
                MetaValue::Unsigned(n) => n.to_string(),
                _ => "of another type".into(),
            };
            cursor.fault(format!("{ALIGNMENT}: a power of two was expected, this is {is}"))
        }
    }
}

/// A tensor's name, type, shape, place among the tensors' bytes, and bytes.
fn tensor<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, TensorType, Shape, u64, u64), Fault> {
    let name = cursor.text("a tensor's name")?;
    let within = |cursor: &Cursor, what: String| cursor.fault(format!("tensor {}: {what}", quoted(name)));
    let before = cursor.clone();
    let rank = cursor.u32("a tensor's number of dimensions")?;
    if rank > MOST_DIMS {
        return within(&before, format!("at most {MOST_DIMS} dimensions were expected, this says {rank}"));
    }
    let sizes = cursor.clone();
    let mut dims = Vec::new();
    for _ in 0..rank {
        dims.push(cursor.u64("a tensor's dimension")?);
    }
    let before = cursor.clone();
    let number = cursor.u32("a tensor's type")?;
    let kind = match stored_as(number) {
        Ok(kind) => kind,
        Err(what) => return within(&before, what),
    };
    let place = cursor.u64("a tensor's offset")?;
    let (together, bytes) = kind.unit();
    // Empty tensors too: their strides are products of the other sizes.
    let size = dims.iter().try_fold(1u64, |n, d| n.checked_mul((*d).max(1)));
    let Some(size) = size.and_then(|n| n.checked_mul(bytes as u64)).filter(|n| *n <= i64::MAX as u64) else {
        return within(&sizes, format!("the size of {kind} {dims:?} overflows"));
    };
    let row = dims.first().copied().unwrap_or(1);
    if row % together as u64 != 0 {
        return within(
            &sizes,
            format!("rows of whole blocks of {together} were expected for {kind}, these have {row}"),
        );
    }
    let bytes = if dims.contains(&0) { 0 } else { size / together as u64 };
    let shape: Vec<usize> = dims.iter().rev().map(|d| *d as usize).collect();
    Ok((name, kind, Shape::new(&shape), place, bytes))
}

/// A type by its number; what is wrong with one that is not read.
fn stored_as(number: u32) -> Result<TensorType, String> {
    use BlockType::*;
    let unread = match number {
        0 => return Ok(TensorType::Plain(DType::F32)),
        1 => return Ok(TensorType::Plain(DType::F16)),
        2 => return Ok(TensorType::Blocks(Q4_0)),
        3 => return Ok(TensorType::Blocks(Q4_1)),
        6 => return Ok(TensorType::Blocks(Q5_0)),
        7 => return Ok(TensorType::Blocks(Q5_1)),
        8 => return Ok(TensorType::Blocks(Q8_0)),
        10 => return Ok(TensorType::Blocks(Q2K)),
        11 => return Ok(TensorType::Blocks(Q3K)),
        12 => return Ok(TensorType::Blocks(Q4K)),
        13 => return Ok(TensorType::Blocks(Q5K)),
        14 => return Ok(TensorType::Blocks(Q6K)),
        20 => return Ok(TensorType::Blocks(Iq4Nl)),
        30 => return Ok(TensorType::Plain(DType::BF16)),
        4 | 5 | 31..=33 | 36..=38 => "which is no longer in use",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => return Err(format!("type {number} is unknown; the file is damaged, or newer than this reader")),
    };
    Err(format!(
        "type {number} ({unread}) is not read; those that are: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to \
         Q6_K, IQ4_NL; quantise the model anew as one of these"
    ))
}

/// Checks that tensors lie where they may: aligned, within the file, and none over another.
fn place(
    stated: Vec<(usize, u64, Entry)>,
    start: u64,
    alignment: u64,
    end: u64,
) -> Result<Vec<Entry>, Fault> {
    let mut order: Vec<usize> = (0..stated.len()).collect();
    order.sort_by_key(|i| (stated[*i].1, stated[*i].2.bytes));
    let mut before: Option<(&str, u64)> = None;
    for i in order {
        let (at, place, entry) = &stated[i];
        let fault = |what: String| {
            Err(Fault { offset: *at, what: format!("tensor {}: {what}", quoted(&entry.name)) })
        };
        if place % alignment != 0 {
            return fault(format!(
                "an offset that is a multiple of {alignment} was expected, this is {place}"
            ));
        }
        let reach = place.checked_add(entry.bytes).and_then(|n| n.checked_add(start));
        if reach.is_none_or(|reach| reach > end) {
            let bytes = entry.bytes;
            return fault(format!(
                "its {bytes} bytes from {start} + {place} on pass the file's end at {end}: cut off?"
            ));
        }
        if let Some((other, until)) = before.filter(|(_, until)| place < until && entry.bytes > 0) {
            return fault(format!(
                "its offset {place} lies in the tensor {}, which ends at {until}",
                quoted(other)
            ));
        }
        if entry.bytes > 0 {
            before = Some((&entry.name, place + entry.bytes));
        }
    }
    Ok(stated.into_iter().map(|(_, place, entry)| Entry { offset: start + place, ..entry }).collect())
}
