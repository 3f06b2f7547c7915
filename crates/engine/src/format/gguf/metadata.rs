//! The metadata: typed values, which stay in the file and are read there.

use std::path::Path;

use super::cursor::Cursor;
use crate::error::Result;
use crate::format::json::Fault;

/// A value of the metadata, over the bytes of the file.
#[derive(Clone, Debug)]
pub enum MetaValue<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    List(List<'a>),
}

/// The values of a list, each read from the file on demand. An error means that the file was modified since it was
/// checked.
#[derive(Clone, Debug)]
pub struct List<'a> {
    path: &'a Path,
    cursor: Cursor<'a>,
    kind: Kind,
    remaining: usize,
    /// The nesting depth of the list.
    depth: usize,
}

impl<'a> Iterator for List<'a> {
    type Item = Result<MetaValue<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let read = read_value(self.path, &mut self.cursor, self.kind, self.depth + 1);
        Some(read.map_err(|fault| fault.into_error(self.path)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for List<'_> {}

/// The values of a list of one type.
pub struct Values<'a, T> {
    list: List<'a>,
    convert: fn(MetaValue<'a>) -> Option<T>,
}

impl<T> Iterator for Values<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.list.next()?;
        value.map(self.convert).transpose()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.list.size_hint()
    }
}

impl<T> ExactSizeIterator for Values<'_, T> {}

/// The texts of a list.
pub type Texts<'a> = Values<'a, &'a str>;
/// The numbers of a list, of any width.
pub type Numbers<'a> = Values<'a, f64>;

/// The types of values, by their numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    U8 = 0,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

const KINDS: [Kind; 13] = [
    Kind::U8,
    Kind::I8,
    Kind::U16,
    Kind::I16,
    Kind::U32,
    Kind::I32,
    Kind::F32,
    Kind::Bool,
    Kind::Text,
    Kind::List,
    Kind::U64,
    Kind::I64,
    Kind::F64,
];

/// The largest nesting depth of lists; real files do not nest them.
const MAX_DEPTH: usize = 4;

impl Kind {
    fn read(cursor: &mut Cursor) -> Result<Kind, Fault> {
        let before = cursor.clone();
        let number = cursor.read_u32("the type of a value")?;
        match KINDS.get(number as usize) {
            Some(kind) => Ok(*kind),
            None => before.fail(format!("a value's type from 0 to 12 was expected, this is {number}")),
        }
    }

    /// The minimum size of a value in bytes.
    fn bytes(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::Text => 8,
            Kind::List => 12,
        }
    }
}

/// Checks a value and skips it.
pub(super) fn check(cursor: &mut Cursor) -> Result<(), Fault> {
    let kind = Kind::read(cursor)?;
    check_value(cursor, kind, 0)
}

fn check_value(cursor: &mut Cursor, kind: Kind, depth: usize) -> Result<(), Fault> {
    match kind {
        Kind::Text => {
            cursor.read_text("a text")?;
        }
        Kind::Bool => {
            let before = cursor.clone();
            let byte = cursor.read_bytes(1, "a truth value")?[0];
            if byte > 1 {
                return before.fail(format!("a truth value of 0 or 1 was expected, this is {byte}"));
            }
        }
        Kind::List => {
            let (kind, count) = read_list_header(cursor, depth)?;
            if matches!(kind, Kind::Text | Kind::Bool | Kind::List) {
                for _ in 0..count {
                    check_value(cursor, kind, depth + 1)?;
                }
            } else {
                cursor.read_bytes(count * kind.bytes(), "a list")?;
            }
        }
        _ => {
            cursor.read_bytes(kind.bytes(), "a number")?;
        }
    }
    Ok(())
}

fn read_list_header(cursor: &mut Cursor, depth: usize) -> Result<(Kind, usize), Fault> {
    if depth == MAX_DEPTH {
        return cursor.fail(format!("lists may be nested at most {MAX_DEPTH} deep"));
    }
    let kind = Kind::read(cursor)?;
    Ok((kind, cursor.read_count(kind.bytes(), "the length of a list")?))
}

/// The texts of a list; `None` for any other value.
pub(super) fn as_texts<'a>(value: MetaValue<'a>) -> Option<Texts<'a>> {
    let convert = |value: MetaValue<'a>| if let MetaValue::Text(text) = value { Some(text) } else { None };
    list_values(value, |kind| kind == Kind::Text, convert)
}

/// The numbers of a list; `None` for any other value.
pub(super) fn as_numbers(value: MetaValue<'_>) -> Option<Numbers<'_>> {
    let convert = |value: MetaValue| match value {
        MetaValue::Unsigned(n) => Some(n as f64),
        MetaValue::Signed(n) => Some(n as f64),
        MetaValue::Float(x) => Some(x),
        _ => None,
    };
    list_values(value, |kind| !matches!(kind, Kind::Bool | Kind::Text | Kind::List), convert)
}

/// The values of a list whose type `accepts` allows; an empty list is accepted by any.
fn list_values<'a, T>(
    value: MetaValue<'a>,
    accepts: impl Fn(Kind) -> bool,
    convert: fn(MetaValue<'a>) -> Option<T>,
) -> Option<Values<'a, T>> {
    match value {
        MetaValue::List(list) if list.remaining == 0 || accepts(list.kind) => Some(Values { list, convert }),
        _ => None,
    }
}

/// The value at the cursor; errors name `path`. The values of a list are not read.
pub(super) fn read<'a>(path: &'a Path, mut cursor: Cursor<'a>) -> Result<MetaValue<'a>, Fault> {
    let kind = Kind::read(&mut cursor)?;
    match kind {
        Kind::List => open_list(path, cursor, 0).map(MetaValue::List),
        _ => read_value(path, &mut cursor, kind, 0),
    }
}

/// An unsigned integer; `None` for any other value.
pub(super) fn read_unsigned(mut cursor: Cursor) -> Result<Option<u64>, Fault> {
    let kind = Kind::read(&mut cursor)?;
    let is_unsigned = matches!(kind, Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64);
    match is_unsigned.then(|| read_number(&mut cursor, kind)).transpose()? {
        Some(MetaValue::Unsigned(n)) => Ok(Some(n)),
        _ => Ok(None),
    }
}

/// Reads a value and advances the cursor.
fn read_value<'a>(
    path: &'a Path,
    cursor: &mut Cursor<'a>,
    kind: Kind,
    depth: usize,
) -> Result<MetaValue<'a>, Fault> {
    if kind == Kind::Text {
        return Ok(MetaValue::Text(cursor.read_text("a text")?));
    }
    if kind == Kind::List {
        let list = open_list(path, cursor.clone(), depth)?;
        check_value(cursor, kind, depth)?;
        return Ok(MetaValue::List(list));
    }
    read_number(cursor, kind)
}

/// Reads a number or a boolean.
fn read_number<'a>(cursor: &mut Cursor<'a>, kind: Kind) -> Result<MetaValue<'a>, Fault> {
    let mut low = [0; 8];
    low[..kind.bytes()].copy_from_slice(cursor.read_bytes(kind.bytes(), "a number")?);
    let bits = u64::from_le_bytes(low);
    Ok(match kind {
        Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => MetaValue::Unsigned(bits),
        Kind::I8 => MetaValue::Signed((bits as i8).into()),
        Kind::I16 => MetaValue::Signed((bits as i16).into()),
        Kind::I32 => MetaValue::Signed((bits as i32).into()),
        Kind::I64 => MetaValue::Signed(bits as i64),
        Kind::F32 => MetaValue::Float(f32::from_bits(bits as u32).into()),
        Kind::F64 => MetaValue::Float(f64::from_bits(bits)),
        Kind::Bool => MetaValue::Bool(bits != 0),
        Kind::Text | Kind::List => unreachable!("no numbers"),
    })
}

/// The list at the cursor.
fn open_list<'a>(path: &'a Path, mut cursor: Cursor<'a>, depth: usize) -> Result<List<'a>, Fault> {
    let (kind, remaining) = read_list_header(&mut cursor, depth)?;
    Ok(List { path, cursor, kind, remaining, depth })
}
