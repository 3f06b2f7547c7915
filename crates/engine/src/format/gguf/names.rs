//! Names of keys or of tensors, which stay in the file.

use super::cursor::Cursor;
use crate::format::json::Fault;
use crate::format::quote;

/// The number of names at which duplicates are first searched, and then again whenever it has doubled.
const FIRST_CHECK: usize = 4096;

/// The offsets of names, sorted by name: 8 bytes each, no more than a name's minimum size in the file.
#[derive(Debug)]
pub(super) struct Names {
    /// The kind of name in messages: `key` or `tensor`.
    what: &'static str,
    offsets: Vec<usize>,
}

impl Names {
    /// Reserves room for `count` names, which the header states at `stated`.
    pub fn with_capacity(count: usize, what: &'static str, stated: &Cursor) -> Result<Names, Fault> {
        let mut offsets = Vec::new();
        // A sparse file may be larger than any memory.
        match offsets.try_reserve_exact(count) {
            Ok(()) => Ok(Names { what, offsets }),
            Err(_) => stated.fail(format!("there is no memory for the places of {count} {what}s")),
        }
    }

    /// Adds the name at `at`. Duplicates are searched from time to time: a sparse file may state endlessly many names,
    /// all the same.
    pub fn push(&mut self, file: &[u8], at: usize) -> Result<(), Fault> {
        self.offsets.push(at);
        let count = self.offsets.len();
        if count >= FIRST_CHECK && count.is_power_of_two() { self.sort(file) } else { Ok(()) }
    }

    /// Sorts the names. A duplicate is an error at the first name that repeats.
    pub fn sort(&mut self, file: &[u8]) -> Result<(), Fault> {
        self.offsets.sort_unstable_by(|a, b| read_name(file, *a).cmp(read_name(file, *b)).then(a.cmp(b)));
        let again =
            self.offsets.windows(2).filter(|pair| read_name(file, pair[0]) == read_name(file, pair[1]));
        let Some(at) = again.map(|pair| pair[1]).min() else { return Ok(()) };
        let cursor = Cursor::new(file, at);
        let shown = quote(cursor.clone().read_text("a name")?);
        cursor.fail(format!("duplicate {} {shown}", self.what))
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// The offsets in the order of the file.
    pub fn in_file_order(&self) -> Vec<usize> {
        let mut offsets = self.offsets.clone();
        offsets.sort_unstable();
        offsets
    }

    /// The i-th name in sorted order.
    pub fn read<'a>(&self, file: &'a [u8], i: usize) -> Result<&'a str, Fault> {
        Cursor::new(file, self.offsets[i]).read_text("a name")
    }

    /// The offset of a name.
    pub fn find(&self, file: &[u8], wanted: &str) -> Option<usize> {
        let found = self.offsets.binary_search_by(|at| read_name(file, *at).cmp(wanted.as_bytes()));
        found.ok().map(|i| self.offsets[i])
    }
}

/// The bytes of a name; empty if the file was modified since it was checked.
fn read_name(file: &[u8], at: usize) -> &[u8] {
    Cursor::new(file, at).read_text_bytes("a name").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_names_are_found_before_all_are_read() {
        let file = [0; 8 * FIRST_CHECK];
        let mut names = Names::with_capacity(FIRST_CHECK, "key", &Cursor::new(&file, 0)).unwrap();
        let fault = (0..FIRST_CHECK).find_map(|i| names.push(&file, 8 * i).err()).expect("before the last");
        assert_eq!((fault.offset, &*fault.what), (8, "duplicate key \"\""));
    }

    #[test]
    fn more_names_than_memory_are_refused() {
        let fault = Names::with_capacity(usize::MAX / 8, "tensor", &Cursor::new(&[0; 16], 8)).unwrap_err();
        let what = format!("there is no memory for the places of {} tensors", usize::MAX / 8);
        assert_eq!((fault.offset, fault.what), (8, what));
    }
}
