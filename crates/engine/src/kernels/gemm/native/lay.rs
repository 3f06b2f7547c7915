//! Where tiles read A: where it lies, in a copy of some rows, or in what was made of all of them.

use super::microkernel::Left;

/// Where tiles read A.
#[derive(Clone, Copy)]
pub enum Lay {
    /// In a copy of a group's rows, row by row, a line more than their length apart.
    Rows,
    /// In one term by term, where A's columns lie along its rows: the elements of all rows side by side. Read in place, each
    /// term is a line of its own, and those of a width that is a power of two push one another out of the first cache:
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
