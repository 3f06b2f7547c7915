//! Names, of keys or of tensors, that stay in the file.

use super::cursor::Cursor;
use crate::format::json::Fault;
use crate::format::quoted;

/// How many names are there before it is first looked whether one stands twice, and then whenever they have doubled.
const FIRST_LOOK: usize = 4096;

/// Where each of the names stands, in the order of their texts: 8 bytes for a name, of which the shortest takes 8 in the
/// file beside what it names.
#[derive(Debug)]
pub(super) struct Names {
    /// What they name: `key` or `tensor`.
    what: &'static str,
    places: Vec<usize>,
}

impl Names {
    /// Room for `count` of them, which is stated at `stated`, and no more.
    pub fn with_room(count: usize, what: &'static str, stated: &Cursor) -> Result<Names, Fault> {
        let mut places = Vec::new();
        // A file with holes is larger than any memory.
        match places.try_reserve_exact(count) {
            Ok(()) => Ok(Names { what, places }),
            Err(_) => stated.fault(format!("there is no memory for the places of {count} {what}s")),
        }
    }

    /// One more, that stands at `at`. Whether one stands twice is looked for now and then: where a file has holes it may
    /// go on without an end, and all that is named there is named alike.
    pub fn push(&mut self, file: &[u8], at: usize) -> Result<(), Fault> {
        self.places.push(at);
        let count = self.places.len();
        if count >= FIRST_LOOK && count.is_power_of_two() { self.sort(file) } else { Ok(()) }
    }

    /// Sorts them. One that stands twice is a fault, where the first of these does so.
    pub fn sort(&mut self, file: &[u8]) -> Result<(), Fault> {
        self.places.sort_unstable_by(|a, b| name(file, *a).cmp(name(file, *b)).then(a.cmp(b)));
        let again = self.places.windows(2).filter(|pair| name(file, pair[0]) == name(file, pair[1]));
        let Some(at) = again.map(|pair| pair[1]).min() else { return Ok(()) };
        let cursor = Cursor::new(file, at);
        let shown = quoted(cursor.clone().text("a name")?);
        cursor.fault(format!("the {} {shown} stands twice", self.what))
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Where each stands, in the order of the file.
    pub fn in_file_order(&self) -> Vec<usize> {
        let mut places = self.places.clone();
        places.sort_unstable();
        places
    }

    /// Name number `i` in the order of their texts.
    pub fn text<'a>(&self, file: &'a [u8], i: usize) -> Result<&'a str, Fault> {
        Cursor::new(file, self.places[i]).text("a name")
    }

    /// Where a name stands.
    pub fn find(&self, file: &[u8], wanted: &str) -> Option<usize> {
        let found = self.places.binary_search_by(|at| name(file, *at).cmp(wanted.as_bytes()));
        found.ok().map(|i| self.places[i])
    }
}

/// The bytes of a name; none where the file was written into since it was checked.
fn name(file: &[u8], at: usize) -> &[u8] {
    Cursor::new(file, at).unread_text("a name").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alike_are_found_before_all_are_read() {
        let file = [0; 8 * FIRST_LOOK];
        let mut names = Names::with_room(FIRST_LOOK, "key", &Cursor::new(&file, 0)).unwrap();
        let fault = (0..FIRST_LOOK).find_map(|i| names.push(&file, 8 * i).err()).expect("before the last");
        assert_eq!((fault.offset, &*fault.what), (8, "the key \"\" stands twice"));
    }

    #[test]
    fn more_than_any_memory() {
        let fault = Names::with_room(usize::MAX / 8, "tensor", &Cursor::new(&[0; 16], 8)).unwrap_err();
        let what = format!("there is no memory for the places of {} tensors", usize::MAX / 8);
        assert_eq!((fault.offset, fault.what), (8, what));
    }
}
