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

    pub fn fault<T>(&self, what: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { offset: self.at, what: what.into() })
    }

    pub fn bytes(&mut self, count: usize, what: impl Display) -> Result<&'a [u8], Fault> {
        let Some(bytes) = self.file[self.at..].get(..count) else {
            return self.fault(format!(
                "cut off: {what} of {count} bytes was expected, {} are there",
                self.remaining()
            ));
        };
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N, what)?);
        Ok(array)
    }

    pub fn u32(&mut self, what: impl Display) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: impl Display) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Reads a count of items of at least `each` bytes; it must fit the rest of the file.
    pub fn count(&mut self, each: usize, what: impl Display + Copy) -> Result<usize, Fault> {
        let before = self.clone();
        let count = self.u64(what)?;
        let most = self.remaining() / each;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => before.fault(format!("{what} says {count}, and the rest of the file has room for {most}")),
        }
    }

    /// The bytes of a text, not checked to be UTF-8.
    pub fn unread_text(&mut self, what: &str) -> Result<&'a [u8], Fault> {
        let length = self.count(1, format_args!("the length of {what}"))?;
        self.bytes(length, what)
    }

    pub fn text(&mut self, what: &str) -> Result<&'a str, Fault> {
        let start = self.at;
        let bytes = self.unread_text(what)?;
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
