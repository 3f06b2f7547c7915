//! Tensor entries of a header, and the checks of their locations.

use std::fmt;

use lowrank_cpu::quant::BlockType;
use smallvec::SmallVec;

use super::cursor::Cursor;
use crate::dtype::DType;
use crate::format::json::Fault;
use crate::format::quote;
use crate::shape::Shape;

const MAX_DIMS: usize = 4;

/// The storage type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    Plain(DType),
    Blocks(BlockType),
}

impl TensorType {
    /// Elements that are stored together, and their bytes.
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
    /// Outermost first; a file has the reverse order.
    pub shape: Shape,
    /// Bytes from the file's start.
    pub offset: u64,
    pub bytes: u64,
}

/// A tensor entry as stated by a header.
pub(super) struct TensorEntry<'a> {
    /// The offset of the entry.
    pub at: usize,
    name: &'a str,
    kind: TensorType,
    shape: Shape,
    /// Bytes from the start of the tensor data.
    relative_offset: u64,
    bytes: u64,
}

impl<'a> TensorEntry<'a> {
    /// Reads an entry and advances the cursor.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<TensorEntry<'a>, Fault> {
        let at = cursor.offset();
        let name = cursor.read_text("a tensor's name")?;
        let fail_at = |cursor: &Cursor, what: String| cursor.fail(format!("tensor {}: {what}", quote(name)));
        let before = cursor.clone();
        let rank = cursor.read_u32("a tensor's number of dimensions")?;
        if rank as usize > MAX_DIMS {
            return fail_at(
                &before,
                format!("at most {MAX_DIMS} dimensions were expected, this says {rank}"),
            );
        }
        let sizes = cursor.clone();
        let mut dims = SmallVec::<[u64; MAX_DIMS]>::new();
        for _ in 0..rank {
            dims.push(cursor.read_u64("a tensor's dimension")?);
        }
        let before = cursor.clone();
        let number = cursor.read_u32("a tensor's type")?;
        let kind = match parse_type(number) {
            Ok(kind) => kind,
            Err(what) => return fail_at(&before, what),
        };
        let relative_offset = cursor.read_u64("a tensor's offset")?;
        let (together, bytes) = kind.unit();
        // Empty tensors, too: their strides are products of the other sizes.
        let size = dims.iter().try_fold(1u64, |n, d| n.checked_mul((*d).max(1)));
        let Some(size) = size.and_then(|n| n.checked_mul(bytes as u64)).filter(|n| *n <= i64::MAX as u64)
        else {
            return fail_at(&sizes, format!("the size of {kind} {dims:?} overflows"));
        };
        let row = dims.first().copied().unwrap_or(1);
        if row % together as u64 != 0 {
            return fail_at(
                &sizes,
                format!("rows of whole blocks of {together} were expected for {kind}, these have {row}"),
            );
        }
        let bytes = if dims.contains(&0) { 0 } else { size / together as u64 };
        let shape: SmallVec<[usize; MAX_DIMS]> = dims.iter().rev().map(|d| *d as usize).collect();
        Ok(TensorEntry { at, name, kind, shape: Shape::new(&shape), relative_offset, bytes })
    }

    fn fail<T>(&self, what: String) -> Result<T, Fault> {
        Err(Fault { offset: self.at, what: format!("tensor {}: {what}", quote(self.name)) })
    }
}

/// A type by its number; an error text if it is not supported.
fn parse_type(number: u32) -> Result<TensorType, String> {
    use BlockType::*;
    let name = match number {
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
        "type {number} ({name}) is not read; those that are: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to \
         Q6_K, IQ4_NL; quantise the model again as one of these"
    ))
}

/// The region of a file's tensors: from `start` to `end`, at multiples of `alignment`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub start: u64,
    pub alignment: u64,
    pub end: u64,
}

impl Data {
    /// Reads an entry, checks its location, and advances the cursor.
    pub fn read_entry(&self, cursor: &mut Cursor) -> Result<Entry, Fault> {
        let TensorEntry { name, kind, shape, relative_offset, bytes, .. } =
            self.check_region(TensorEntry::read(cursor)?)?;
        Ok(Entry { name: name.into(), kind, shape, offset: self.start + relative_offset, bytes })
    }

    /// Checks that the tensors of the entries at `order` are within the region and do not overlap.
    pub fn check(&self, file: &[u8], mut order: Vec<usize>) -> Result<(), Fault> {
        let stated = |at: usize| TensorEntry::read(&mut Cursor::new(file, at));
        order.sort_unstable_by_key(|at| {
            stated(*at).map_or((0, 0, *at), |it| (it.relative_offset, it.bytes, *at))
        });
        let mut before: Option<TensorEntry> = None;
        for at in order {
            let tensor = self.check_region(stated(at)?)?;
            if tensor.bytes == 0 {
                continue;
            }
            if let Some(other) =
                before.filter(|other| tensor.relative_offset < other.relative_offset + other.bytes)
            {
                return tensor.fail(format!(
                    "its offset {} lies in the tensor {}, which ends at {}",
                    tensor.relative_offset,
                    quote(other.name),
                    other.relative_offset + other.bytes
                ));
            }
            before = Some(tensor);
        }
        Ok(())
    }

    /// Checks that a tensor is within the region.
    fn check_region<'a>(&self, tensor: TensorEntry<'a>) -> Result<TensorEntry<'a>, Fault> {
        let (Data { start, alignment, end }, TensorEntry { relative_offset, bytes, .. }) = (self, &tensor);
        if relative_offset % alignment != 0 {
            return tensor.fail(format!(
                "an offset that is a multiple of {alignment} was expected, this is {relative_offset}"
            ));
        }
        let reach = relative_offset.checked_add(*bytes).and_then(|n| n.checked_add(*start));
        if reach.is_none_or(|reach| reach > *end) {
            return tensor.fail(format!(
                "its {bytes} bytes from {start} + {relative_offset} on pass the file's end at {end}: cut off?"
            ));
        }
        Ok(tensor)
    }
}
