//! Layouts of A: in place, a copy of a task's rows, or packed once for all tasks.

use super::cut::worth;
use super::loops::Stored;
use super::microkernel::Left;
use super::product::{ALIASED, Product};
use super::workspace::LINE;
use crate::kernel::native::each_task;

/// Packs `rows` rows of `k` terms of A; arguments: A, `rows`, `k`, the destination, its leading dimension.
pub type Make = unsafe fn(Left, usize, usize, *mut f32, usize);

/// Rows that one packing task handles.
const TASK_ROWS: usize = 32;

/// The layout in which tiles read A when they do not read it in place.
#[derive(Clone, Copy)]
pub enum Lay {
    /// A copy of a group's rows, row-major, with a padded leading dimension.
    Rows,
    /// A copy of a group's rows, term by term, for an A whose columns are contiguous. Read in place, each term is in a
    /// separate cache line, and with a stride of a power of two the lines evict one another from L1.
    Columns,
    /// All rows, packed once for all tasks.
    Packed(Packed),
}

/// Packed A: for each block of K, the rows of all matrices.
#[derive(Clone, Copy)]
pub struct Packed {
    pub at: *const f32,
    /// Rows that are interleaved.
    pub together: usize,
    /// Elements from one group of interleaved rows to the next.
    pub row: usize,
    /// Elements from one block of K to the next.
    pub part: usize,
}

// SAFETY: tasks write disjoint rows, and read only after all rows are written.
unsafe impl Sync for Packed {}

impl Packed {
    /// The group of interleaved rows that starts at `row`, in block `part` of K.
    pub fn rows(self, row: usize, part: usize) -> Left {
        let at = self.at.wrapping_add(part * self.part + row / self.together * self.row);
        Left { at, row: self.row, k: 1 }
    }
}

/// Leading dimension of a copy whose rows have `elements` elements: whole cache lines plus one line, or plus two, since
/// rows with a stride of a multiple of 4 KiB alias in L1.
pub fn apart(elements: usize) -> usize {
    let row = elements.next_multiple_of(LINE) + LINE;
    if row.is_multiple_of(ALIASED) { row + LINE } else { row }
}

/// Copies `rows` rows of `k` terms of A to `to`, with leading dimension `to_row`.
///
/// # Safety
/// `a` covers `rows` rows of `k` terms; `to` covers as many.
pub unsafe fn copy(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    for i in 0..rows {
        // SAFETY: guaranteed by the caller.
        unsafe { std::ptr::copy_nonoverlapping(a.at.add(i * a.row), to.add(i * to_row), k) };
    }
}

impl<T: Stored> Product<T> {
    /// Packs all rows of A with `make`, in parallel, one block of K at a time.
    ///
    /// # Safety
    /// As for `run`; `to` has room for all rows of all blocks of K.
    pub(super) unsafe fn lay(&self, make: Make, to: Packed, part: usize, threads: usize) {
        let (groups, parts) = (self.m.div_ceil(TASK_ROWS), self.k.div_ceil(part));
        each_task(worth(self.batch * self.m * self.k, threads), self.batch * groups * parts, |i| {
            let (i, p) = (i / parts, i % parts);
            let (z, row) = (i / groups, i % groups * TASK_ROWS);
            let from = p * part;
            // SAFETY: guaranteed by the caller.
            unsafe {
                let at = self.a.add(z * self.a_batch + row * self.a_row + from * self.a_column);
                let a = Left { at, row: self.a_row, k: self.a_column };
                let to = to.rows(z * self.m.next_multiple_of(to.together) + row, p);
                make(a, TASK_ROWS.min(self.m - row), part.min(self.k - from), to.at.cast_mut(), to.row);
            }
        });
    }
}
