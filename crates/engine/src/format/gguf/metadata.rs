//! The metadata: keys and typed values, which stay in the file until they are asked for.

use super::cursor::Cursor;
use crate::format::json::Fault;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaValue {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    List(Vec<MetaValue>),
}

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

/// How deep lists may lie in lists: real files have none that do.
const DEEPEST: usize = 4;

impl Kind {
    fn read(cursor: &mut Cursor) -> Result<Kind, Fault> {
        let before = cursor.clone();
        let number = cursor.u32("the type of a value")?;
        match KINDS.get(number as usize) {
            Some(kind) => Ok(*kind),
            None => before.fault(format!("a value's type from 0 to 12 was expected, this is {number}")),
        }
    }

    /// Bytes that a value takes, at least.
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

/// Goes past a value, all of which is checked, and nothing kept.
pub(super) fn check(cursor: &mut Cursor) -> Result<(), Fault> {
    let kind = Kind::read(cursor)?;
    check_value(cursor, kind, 0)
}

fn check_value(cursor: &mut Cursor, kind: Kind, depth: usize) -> Result<(), Fault> {
    match kind {
        Kind::Text => {
            cursor.text("a text")?;
        }
        Kind::Bool => {
            let before = cursor.clone();
            let byte = cursor.bytes(1, "a truth value")?[0];
            if byte > 1 {
                return before.fault(format!("a truth value of 0 or 1 was expected, this is {byte}"));
            }
        }
        Kind::List => {
            let (kind, count) = list(cursor, depth)?;
            if matches!(kind, Kind::Text | Kind::Bool | Kind::List) {
                for _ in 0..count {
                    check_value(cursor, kind, depth + 1)?;
                }
            } else {
                cursor.bytes(count * kind.bytes(), "a list")?;
            }
        }
        _ => {
            cursor.bytes(kind.bytes(), "a number")?;
        }
    }
    Ok(())
}

fn list(cursor: &mut Cursor, depth: usize) -> Result<(Kind, usize), Fault> {
    if depth == DEEPEST {
        return cursor.fault(format!("lists were expected to lie at most {DEEPEST} deep"));
    }
    let kind = Kind::read(cursor)?;
    Ok((kind, cursor.count(kind.bytes(), "the length of a list")?))
}

/// The texts of a list as they lie in the file; nothing of a value that is no list of texts.
pub(super) fn texts<'a>(
    mut cursor: Cursor<'a>,
) -> Result<Option<impl ExactSizeIterator<Item = Result<&'a str, Fault>>>, Fault> {
    let Some((kind, count)) = values(&mut cursor)? else { return Ok(None) };
    Ok((kind == Kind::Text || count == 0).then(|| (0..count).map(move |_| cursor.text("a text"))))
}

/// The numbers of a list; nothing of a value that is no list of numbers.
pub(super) fn numbers(mut cursor: Cursor) -> Result<Option<Vec<f64>>, Fault> {
    let Some((kind, count)) = values(&mut cursor)? else { return Ok(None) };
    if count > 0 && matches!(kind, Kind::Bool | Kind::Text | Kind::List) {
        return Ok(None);
    }
    let number = |_| {
        Ok(match read_value(&mut cursor, kind, 0)? {
            MetaValue::Unsigned(n) => n as f64,
            MetaValue::Signed(n) => n as f64,
            MetaValue::Float(x) => x,
            _ => unreachable!("of a kind of numbers"),
        })
    };
    Ok(Some((0..count).map(number).collect::<Result<_, Fault>>()?))
}

/// What the values of a list are, and how many; nothing of another value.
fn values(cursor: &mut Cursor) -> Result<Option<(Kind, usize)>, Fault> {
    match Kind::read(cursor)? {
        Kind::List => Ok(Some(list(cursor, 0)?)),
        _ => Ok(None),
    }
}

/// Reads a value.
pub(super) fn read(cursor: &mut Cursor) -> Result<MetaValue, Fault> {
    let kind = Kind::read(cursor)?;
    read_value(cursor, kind, 0)
}

fn read_value(cursor: &mut Cursor, kind: Kind, depth: usize) -> Result<MetaValue, Fault> {
    if kind == Kind::Text {
        return Ok(MetaValue::Text(cursor.text("a text")?.into()));
    }
    if kind == Kind::List {
        let (kind, count) = list(cursor, depth)?;
        let values = (0..count).map(|_| read_value(cursor, kind, depth + 1));
        return Ok(MetaValue::List(values.collect::<Result<_, Fault>>()?));
    }
    let mut low = [0; 8];
    low[..kind.bytes()].copy_from_slice(cursor.bytes(kind.bytes(), "a number")?);
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
        Kind::Text | Kind::List => unreachable!("read above"),
    })
}
