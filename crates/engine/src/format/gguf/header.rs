//! The header: what the file says of itself, its metadata, and where its tensors lie.
//!
//! Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and gguf.cpp for what is taken. Versions 2 and 3
//! differ by the order of bytes alone, which 3 admits to be high first; such files are refused.

use super::cursor::Cursor;
use super::metadata;
use super::names::Names;
use super::tensors::{Data, Entry, Stated};
use crate::format::json::Fault;
use crate::format::quoted;

const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Bytes of the shortest key with a value, and of the shortest tensor: lengths, types, places.
const KEY_BYTES: usize = 8 + 4 + 1;
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// What is kept of a checked header: where things stand in the file that it was read from.
#[derive(Debug)]
pub(super) struct Header {
    pub keys: Names,
    pub tensors: Names,
    /// Where the first tensor stands, behind which are the others.
    pub first_tensor: usize,
    pub data: Data,
}

impl Header {
    /// Reads and checks the header of a whole file. Every tensor lies within `file`, and no two overlap.
    pub fn parse(file: &[u8]) -> Result<Header, Fault> {
        let mut cursor = Cursor::new(file, 0);
        version(&mut cursor)?;
        let tensors = cursor.clone();
        cursor.count(TENSOR_BYTES, "the number of tensors")?;
        let keys = keys(file, &mut cursor)?;
        let alignment = alignment(file, &keys)?;
        // Once more, since only now it is known how much of the file is left for them.
        let count = tensors.clone().count(TENSOR_BYTES, "the number of tensors")?;
        if count > cursor.left() / TENSOR_BYTES {
            let what =
                format!("the number of tensors says {count}, and the rest of the file has no room for these");
            return tensors.fault(what);
        }
        let first_tensor = cursor.offset();
        let mut names = Names::with_room(count, "tensor", &tensors)?;
        let read = (0..count).try_for_each(|_| {
            let tensor = Stated::read(&mut cursor)?;
            names.push(file, tensor.at)
        });
        // One that stands twice does so before what could not be read.
        names.sort(file)?;
        read?;
        let start = (cursor.offset() as u64).next_multiple_of(alignment);
        let data = Data { start, alignment, end: file.len() as u64 };
        data.check(file, names.in_file_order())?;
        Ok(Header { keys, tensors: names, first_tensor, data })
    }

    /// Where the value of a key stands.
    pub fn value<'a>(&self, file: &'a [u8], key: &str) -> Result<Option<Cursor<'a>>, Fault> {
        value(file, &self.keys, key)
    }

    /// A tensor by its name.
    pub fn entry(&self, file: &[u8], name: &str) -> Result<Option<Entry>, Fault> {
        let at = self.tensors.find(file, name);
        at.map(|at| self.data.entry(&mut Cursor::new(file, at))).transpose()
    }
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

/// Goes past the keys and their values.
fn keys(file: &[u8], cursor: &mut Cursor) -> Result<Names, Fault> {
    let before = cursor.clone();
    let count = cursor.count(KEY_BYTES, "the number of metadata keys")?;
    let mut keys = Names::with_room(count, "key", &before)?;
    let read = (0..count).try_for_each(|_| {
        let at = cursor.offset();
        let key = cursor.text("a metadata key")?;
        keys.push(file, at)?;
        metadata::check(cursor)
            .map_err(|fault| Fault { what: format!("{}: {}", quoted(key), fault.what), ..fault })
    });
    // One that stands twice does so before what could not be read.
    keys.sort(file)?;
    read.map(|()| keys)
}

fn value<'a>(file: &'a [u8], keys: &Names, key: &str) -> Result<Option<Cursor<'a>>, Fault> {
    let Some(at) = keys.find(file, key) else { return Ok(None) };
    let mut cursor = Cursor::new(file, at);
    cursor.unread_text("a metadata key")?;
    Ok(Some(cursor))
}

fn alignment(file: &[u8], keys: &Names) -> Result<u64, Fault> {
    let Some(cursor) = value(file, keys, ALIGNMENT)? else { return Ok(DEFAULT_ALIGNMENT) };
    let is = match metadata::unsigned(cursor.clone())? {
        Some(n) if n.is_power_of_two() && u32::try_from(n).is_ok() => return Ok(n),
        Some(n) => n.to_string(),
        None => "of another type".into(),
    };
    cursor.fault(format!("{ALIGNMENT}: a power of two was expected, this is {is}"))
}
