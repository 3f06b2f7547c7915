//! The header: version, metadata, and the locations of tensors.
//!
//! Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and gguf.cpp for details. Versions 2 and 3 differ
//! only in that 3 allows big-endian files, which are refused.

use super::cursor::Cursor;
use super::metadata;
use super::names::Names;
use super::tensors::{Data, Entry, TensorEntry};
use crate::format::json::Fault;
use crate::format::quote;

const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// Bytes of the shortest key with a value, and of the shortest tensor entry.
const KEY_BYTES: usize = 8 + 4 + 1;
const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// A checked header: offsets into its file.
#[derive(Debug)]
pub(super) struct Header {
    pub keys: Names,
    pub tensors: Names,
    /// The offset of the first tensor entry; the others follow.
    pub first_tensor: usize,
    pub data: Data,
}

impl Header {
    /// Parses and checks the header of a file. Every tensor is within `file`, and no two overlap.
    pub fn parse(file: &[u8]) -> Result<Header, Fault> {
        let mut cursor = Cursor::new(file, 0);
        skip_version(&mut cursor)?;
        let tensors = cursor.clone();
        cursor.read_count(TENSOR_BYTES, "the number of tensors")?;
        let keys = read_keys(file, &mut cursor)?;
        let alignment = read_alignment(file, &keys)?;
        // Checked again, since only now the remaining bytes are known.
        let count = tensors.clone().read_count(TENSOR_BYTES, "the number of tensors")?;
        if count > cursor.remaining() / TENSOR_BYTES {
            let what =
                format!("the number of tensors says {count}, and the rest of the file has no room for these");
            return tensors.fail(what);
        }
        let first_tensor = cursor.offset();
        let mut names = Names::with_capacity(count, "tensor", &tensors)?;
        let read = (0..count).try_for_each(|_| {
            let tensor = TensorEntry::read(&mut cursor)?;
            names.push(file, tensor.at)
        });
        // A duplicate comes before the entry that could not be read.
        names.sort(file)?;
        read?;
        let start = (cursor.offset() as u64).next_multiple_of(alignment);
        let data = Data { start, alignment, end: file.len() as u64 };
        data.check(file, names.in_file_order())?;
        Ok(Header { keys, tensors: names, first_tensor, data })
    }

    /// The position of a key's value.
    pub fn find_value<'a>(&self, file: &'a [u8], key: &str) -> Result<Option<Cursor<'a>>, Fault> {
        find_value(file, &self.keys, key)
    }

    /// A tensor by its name.
    pub fn find_entry(&self, file: &[u8], name: &str) -> Result<Option<Entry>, Fault> {
        let at = self.tensors.find(file, name);
        at.map(|at| self.data.read_entry(&mut Cursor::new(file, at))).transpose()
    }
}

/// Skips the magic and the version.
fn skip_version(cursor: &mut Cursor) -> Result<(), Fault> {
    let start = cursor.clone();
    let magic = cursor.read_bytes(4, "the beginning \"GGUF\"")?;
    if magic != MAGIC {
        let what = match magic {
            b"vers" => ": this is a Git LFS pointer, and the file itself was not downloaded",
            b"ggml" | b"ggjt" | b"ggmf" | b"tjgg" | b"lmgg" => {
                ": this is an older format; convert the model again"
            }
            [b'<', ..] => ": this is markup, perhaps an error page of a download",
            _ => "",
        };
        let is = String::from_utf8_lossy(magic);
        return start.fail(format!("a GGUF file was expected, which begins with \"GGUF\", not {is:?}{what}"));
    }
    let before = cursor.clone();
    let version = cursor.read_u32("the version")?;
    match version {
        2 | 3 => Ok(()),
        0 | 1 => before.fail(format!("version 2 or 3 was expected, this is {version}; convert the model again")),
        _ if (1..=0xffff).contains(&version.swap_bytes()) => before.fail(
            "the file is big-endian, and little-endian was expected; convert the model again without --bigendian",
        ),
        _ => before.fail(format!("version 2 or 3 was expected, this is {version}, which is newer or damaged")),
    }
}

/// Skips the keys and their values.
fn read_keys(file: &[u8], cursor: &mut Cursor) -> Result<Names, Fault> {
    let before = cursor.clone();
    let count = cursor.read_count(KEY_BYTES, "the number of metadata keys")?;
    let mut keys = Names::with_capacity(count, "key", &before)?;
    let read = (0..count).try_for_each(|_| {
        let at = cursor.offset();
        let key = cursor.read_text("a metadata key")?;
        keys.push(file, at)?;
        metadata::check(cursor)
            .map_err(|fault| Fault { what: format!("{}: {}", quote(key), fault.what), ..fault })
    });
    // A duplicate comes before the entry that could not be read.
    keys.sort(file)?;
    read.map(|()| keys)
}

fn find_value<'a>(file: &'a [u8], keys: &Names, key: &str) -> Result<Option<Cursor<'a>>, Fault> {
    let Some(at) = keys.find(file, key) else { return Ok(None) };
    let mut cursor = Cursor::new(file, at);
    cursor.read_text_bytes("a metadata key")?;
    Ok(Some(cursor))
}

fn read_alignment(file: &[u8], keys: &Names) -> Result<u64, Fault> {
    let Some(cursor) = find_value(file, keys, ALIGNMENT)? else { return Ok(DEFAULT_ALIGNMENT) };
    let is = match metadata::read_unsigned(cursor.clone())? {
        Some(n) if n.is_power_of_two() && u32::try_from(n).is_ok() => return Ok(n),
        Some(n) => n.to_string(),
        None => "of another type".into(),
    };
    cursor.fail(format!("{ALIGNMENT}: a power of two was expected, this is {is}"))
}
