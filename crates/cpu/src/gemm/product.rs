//! A product over raw operands.

use super::arguments::{Epilogue, Left, PackA, Position, Right, SecondTile, Source};
use super::blocking::MAX_REGISTER_KC;
use super::pack::a::PackedA;
use super::partition::{CBlock, limit_threads};
use super::table::{KernelTable, Storage};
use crate::tasks::each_task;

/// Rows that one packing task handles.
const TASK_ROWS: usize = 32;

/// A product over raw operands; strides are in elements.
#[derive(Clone, Copy)]
pub struct Product<T: Storage> {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32,
    pub a_batch: usize,
    pub a_row: usize,
    pub a_column: usize,
    pub b: T::Position,
    pub b_batch: usize,
    pub b_row: usize,
    pub b_column: usize,
    pub c: *mut f32,
    pub c_batch: usize,
    pub c_row: usize,
    pub alpha: f32,
    pub accumulate: bool,
    pub bias: *const f32,
    pub second: Option<SecondSegment>,
}

/// A second segment of the sum: C += alpha · A·B over `k` terms, after the first segment's epilogue. One matrix only.
#[derive(Clone, Copy)]
pub struct SecondSegment {
    pub k: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_column: usize,
    pub b: *const f32,
    pub b_row: usize,
    pub b_column: usize,
    pub alpha: f32,
}

// SAFETY: tasks read A and B and write disjoint parts of C.
unsafe impl<T: Storage> Sync for Product<T> {}
// SAFETY: tasks only read it.
unsafe impl Sync for SecondSegment {}

impl<T: Storage> Product<T> {
    /// C = A·Bᵀ of contiguous row-major matrices.
    pub fn row_major([m, n, k]: [usize; 3], a: *const f32, b: T::Position, c: *mut f32) -> Product<T> {
        Product {
            batch: 1,
            m,
            n,
            k,
            a,
            a_batch: 0,
            a_row: k,
            a_column: 1,
            b,
            b_batch: 0,
            b_row: 1,
            b_column: k,
            c,
            c_batch: 0,
            c_row: n,
            alpha: 1.0,
            accumulate: false,
            bias: std::ptr::null(),
            second: None,
        }
    }

    /// The product restricted to `rows` rows of matrix `z`.
    ///
    /// # Safety
    /// The matrix has these rows.
    pub(super) unsafe fn restrict_rows(&self, z: usize, row: usize, rows: usize) -> Product<T> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            Product {
                batch: 1,
                m: rows,
                a: self.a.add(z * self.a_batch + row * self.a_row),
                b: self.b.plus(z * self.b_batch),
                c: self.c.add(z * self.c_batch + row * self.c_row),
                second: self.second.map(|s| SecondSegment { a: s.a.add(row * s.a_row), ..s }),
                ..*self
            }
        }
    }

    /// Splits off the second segment as a separate product where tiles do not handle both: kernels for `few` rows have
    /// no second segment, and one with many terms needs blocks of K itself.
    pub(super) fn split_second(&self, few: bool) -> Option<(Product<T>, Product<f32>)> {
        let second = self.second.filter(|s| few || s.k > MAX_REGISTER_KC)?;
        let SecondSegment { k, a, a_row, a_column, b, b_row, b_column, alpha } = second;
        debug_assert!(self.batch == 1, "a second segment is of one matrix");
        let alone = Product {
            a_row,
            a_column,
            b_row,
            b_column,
            c_row: self.c_row,
            alpha,
            accumulate: true,
            ..Product::row_major([self.m, self.n, k], a, b, self.c)
        };
        Some((Product { second: None, ..*self }, alone))
    }

    /// A from `row` and term `from` on.
    pub(super) unsafe fn a_at(&self, block: &CBlock, row: usize, from: usize) -> Left {
        let at = block.z * self.a_batch + row * self.a_row + from * self.a_column;
        // SAFETY: guaranteed by the caller.
        Left { at: unsafe { self.a.add(at) }, row: self.a_row, k: self.a_column }
    }

    /// The epilogue of the tile at `row` and `column`. The first block of K adds the bias; later blocks add to C.
    pub(super) unsafe fn make_epilogue(
        &self,
        block: &CBlock,
        row: usize,
        column: usize,
        first: bool,
    ) -> Epilogue {
        let bias =
            // SAFETY: guaranteed by the caller.
            if first && !self.bias.is_null() { unsafe { self.bias.add(column) } } else { std::ptr::null() };
        Epilogue {
            // SAFETY: guaranteed by the caller.
            c: unsafe { self.c.add(block.z * self.c_batch + row * self.c_row + column) },
            row: self.c_row,
            alpha: self.alpha,
            bias,
            accumulate: self.accumulate || !first,
        }
    }

    /// Packs all rows of A with `pack`, in parallel, one block of K at a time.
    ///
    /// # Safety
    /// As for `run`; `to` has room for all rows of all blocks of K.
    pub(super) unsafe fn pack_a(&self, pack: PackA, to: PackedA, kc: usize, threads: usize) {
        let (groups, k_blocks) = (self.m.div_ceil(TASK_ROWS), self.k.div_ceil(kc));
        each_task(
            limit_threads(self.batch * self.m * self.k, threads),
            self.batch * groups * k_blocks,
            |i| {
                let (i, p) = (i / k_blocks, i % k_blocks);
                let (z, row) = (i / groups, i % groups * TASK_ROWS);
                let from = p * kc;
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let at = self.a.add(z * self.a_batch + row * self.a_row + from * self.a_column);
                    let a = Left { at, row: self.a_row, k: self.a_column };
                    let to = to.rows(z * self.m.next_multiple_of(to.interleaved) + row, p);
                    pack(a, TASK_ROWS.min(self.m - row), kc.min(self.k - from), to.at.cast_mut(), to.row);
                }
            },
        );
    }
}

impl SecondSegment {
    /// Packs `width` columns from `column` on into a panel.
    pub(super) unsafe fn pack_panel(
        &self,
        table: &KernelTable,
        [column, width]: [usize; 2],
        panel: usize,
        to: *mut f32,
    ) {
        // SAFETY: guaranteed by the caller.
        let at = unsafe { self.b.add(column * self.b_column) };
        let source = Source { at, row: self.b_row, column: self.b_column };
        // SAFETY: guaranteed by the caller.
        unsafe { (f32::kernels(table).pack)(source, self.k, width, panel, to) };
    }

    /// The second segment's product of a tile: its rows of A from `row` on, and a panel.
    pub(super) unsafe fn make_second_tile(&self, row: usize, b: Right) -> SecondTile {
        // SAFETY: guaranteed by the caller.
        let at = unsafe { self.a.add(row * self.a_row) };
        SecondTile { k: self.k, a: Left { at, row: self.a_row, k: self.a_column }, b, alpha: self.alpha }
    }
}
