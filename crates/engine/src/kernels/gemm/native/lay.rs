//! Where tiles read A: where it lies, in a copy of some rows, or in what was made of all of them.

use super::cut::worth;
use super::loops::Stored;
use super::microkernel::Left;
use super::product::{ALIASED, Product};
use super::workspace::LINE;
use crate::kernel::native::each_task;

/// Makes of so many rows and terms of A what tiles read, whose rows lie so many elements apart.
pub type Make = unsafe fn(Left, usize, usize, *mut f32, usize);

/// Rows of a task that makes them.
const TASK_ROWS: usize = 32;

/// Where tiles read A.
#[derive(Clone, Copy)]
pub enum Lay {
    /// In a copy of a group's rows, row by row, a line more than their length apart.
    Rows,
    /// In one term by term, where A's columns lie along its rows: the elements of all rows side by side. Read in place, each
    /// term is a line of its own, and those of a width that is a power of two evict one another from L1:
    /// 512 × 128 × 1024 by Aᵀ took 803 µs, not 640, on two cores of a Xeon with AVX-512.
    Columns,
    /// In what was made of all of them before, for all tasks.
    Packed(Packed),
}

/// A as tiles read it: for each part of K the rows of all matrices.
#[derive(Clone, Copy)]
pub struct Packed {
    pub at: *const f32,
    /// Rows that lie together.
    pub together: usize,
    /// Elements between those and the next.
    pub row: usize,
    /// Elements between parts.
    pub part: usize,
}

// SAFETY: tasks write disjoint rows of it, and read it when all are written.
unsafe impl Sync for Packed {}

impl Packed {
    /// From a row on, the first of those that lie together, of a part.
    pub fn rows(self, row: usize, part: usize) -> Left {
        let at = self.at.wrapping_add(part * self.part + row / self.together * self.row);
        Left { at, row: self.row, k: 1 }
    }
}

/// Elements from row to row of copies of so many: whole lines and one more, or two, since rows a power of two apart would
/// fall on the same sets of L1.
pub fn apart(elements: usize) -> usize {
    let row = elements.next_multiple_of(LINE) + LINE;
    if row.is_multiple_of(ALIASED) { row + LINE } else { row }
}

/// Rows of A as they are, `to_row` elements apart.
///
/// # Safety
/// `a` reaches over the rows and terms, `to` over as many.
pub unsafe fn copy(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    for i in 0..rows {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(a.at.add(i * a.row), to.add(i * to_row), k) };
    }
}

impl<T: Stored> Product<T> {
    /// Makes of A's rows what tasks read, some of a part of K to a task.
    ///
    /// # Safety
    /// As `run`; `to` has room for the parts of all rows.
    pub(super) unsafe fn lay(&self, make: Make, to: Packed, part: usize, threads: usize) {
        let (groups, parts) = (self.m.div_ceil(TASK_ROWS), self.k.div_ceil(part));
        each_task(worth(self.batch * self.m * self.k, threads), self.batch * groups * parts, |i| {
            let (i, p) = (i / parts, i % parts);
            let (z, row) = (i / groups, i % groups * TASK_ROWS);
            let from = p * part;
            // SAFETY: the caller's.
            unsafe {
                let at = self.a.add(z * self.a_batch + row * self.a_row + from * self.a_column);
                let a = Left { at, row: self.a_row, k: self.a_column };
                let to = to.rows(z * self.m.next_multiple_of(to.together) + row, p);
                make(a, TASK_ROWS.min(self.m - row), part.min(self.k - from), to.at.cast_mut(), to.row);
            }
        });
    }
}
