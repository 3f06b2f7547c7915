//! Layouts of A: in place, a copy of a task's rows, or packed once for all tasks.

use crate::gemm::arguments::Left;

/// The layout in which tiles read A when they do not read it in place.
#[derive(Clone, Copy)]
pub enum LayoutA {
    /// A copy of a group's rows, row-major, with a padded leading dimension.
    Rows,
    /// A copy of a group's rows, term by term, for an A whose columns are contiguous. Read in place, each term is in a
    /// separate cache line, and with a stride of a power of two the lines evict one another from L1.
    Columns,
    /// All rows, packed once for all tasks.
    PackedA(PackedA),
}

/// Packed A: for each block of K, the rows of all matrices.
#[derive(Clone, Copy)]
pub struct PackedA {
    pub at: *const f32,
    /// Rows that are interleaved.
    pub interleaved: usize,
    /// Elements from one group of interleaved rows to the next.
    pub row: usize,
    /// Elements from one block of K to the next.
    pub k_block_stride: usize,
}

// SAFETY: tasks write disjoint rows, and read only after all rows are written.
unsafe impl Sync for PackedA {}

impl PackedA {
    /// The group of interleaved rows that starts at `row`, in block `k_block` of K.
    pub fn rows(self, row: usize, k_block: usize) -> Left {
        let at = self.at.wrapping_add(k_block * self.k_block_stride + row / self.interleaved * self.row);
        Left { at, row: self.row, k: 1 }
    }
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

/// Rounds `rows` rows of `k` terms to the nearest bf16, ties to even, and stores them as f32.
///
/// # Safety
/// `a` covers `rows` rows of `k` terms; `to` covers rows of `k` elements with leading dimension `to_row`.
#[inline(always)]
pub unsafe fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for i in 0..rows {
            for t in 0..k {
                *to.add(i * to_row + t) = round_to_bf16(*a.at.add(i * a.row + t * a.k));
            }
        }
    }
}

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub fn round_to_bf16(v: f32) -> f32 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if v.is_nan() { v } else { f32::from_bits(rounded) }
}
