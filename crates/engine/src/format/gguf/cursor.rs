//! A position in a file's bytes, from which values are read with bounds checks.

use std::fmt::{self, Debug, Display};

use crate::format::json::Fault;
use crate::format::quote;

/// Reads forward; a value that would end past the file is an error with the expected value and the offset.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &'a [u8], at: usize) -> Self {
        Cursor { file, at }
    }

    /// Bytes from the file's start.
    pub fn offset(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.file.len() - self.at
    }

    pub fn fail<T>(&self, what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { offset: self.at, what: what.into() })
    }

    pub fn read_bytes(&mut self, count: usize, what: impl Display) -> Result<&'a [u8], Fault> {
        let Some(bytes) = self.file[self.at..].get(..count) else {
            return self.fail(format!(
                "cut off: {what} of {count} bytes was expected, {} are there",
                self.remaining()
            ));
        };
        self.at += count;
        Ok(bytes)
    }

    fn read_array<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.read_bytes(N, what)?);
        Ok(array)
    }

    pub fn read_u32(&mut self, what: impl Display) -> Result<u32, Fault> {
        self.read_array(what).map(u32::from_le_bytes)
    }

    pub fn read_u64(&mut self, what: impl Display) -> Result<u64, Fault> {
        self.read_array(what).map(u64::from_le_bytes)
    }

    /// Reads a count of items of at least `item_bytes` bytes; it must fit the rest of the file.
    pub fn read_count(&mut self, item_bytes: usize, what: impl Display + Copy) -> Result<usize, Fault> {
        let before = self.clone();
        let count = self.read_u64(what)?;
        let limit = self.remaining() / item_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= limit => Ok(count),
            _ => before.fail(format!("{what} says {count}, and the rest of the file has room for {limit}")),
        }
    }

    /// The bytes of a text, not checked to be UTF-8.
    pub fn read_text_bytes(&mut self, what: &str) -> Result<&'a [u8], Fault> {
        let length = self.read_count(1, format_args!("the length of {what}"))?;
        self.read_bytes(length, what)
    }

    pub fn read_text(&mut self, what: &str) -> Result<&'a str, Fault> {
        let start = self.at;
        let bytes = self.read_text_bytes(what)?;
        std::str::from_utf8(bytes).map_err(|e| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            Fault {
                offset: start + 8 + e.valid_up_to(),
                what: format!("{what} is not UTF-8: {}", quote(&shown)),
            }
        })
    }
}

impl Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}", self.at)
    }
}
