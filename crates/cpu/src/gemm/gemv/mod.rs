//! Products of few rows: B is read once, by rows (`dots`) or by columns (`strips`), whichever is contiguous.

pub mod dot;

use super::arguments::{ArrangedRow, COLUMNS, DotKernel, DotProducts, Left, MAX_GEMV_ROWS, Position, Strip};
use super::partition::limit_threads;
use super::product::Product;
use super::table::{KernelTable, Storage};
use super::workspace::with_workspace;
use crate::tasks::each_task;

/// Bytes of B per task, approximately: enough for sequential prefetching to be effective.
const TASK_BYTES: usize = 64 * 1024;
/// Columns of a strip: 4 KiB of each row of B.
const STRIP_COLUMNS: usize = 1024;

impl<T: Storage> Product<T> {
    /// Multiplies rows of B that are contiguous along k by all rows of A.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn gemv_dots(&self, table: &'static KernelTable, threads: usize) {
        let columns = columns_per_task(self.b.bytes(self.n * self.k), self.n, threads);
        // SAFETY: guaranteed by the caller; no two tasks share a column.
        unsafe {
            self.with_arranged_row(|row| {
                self.for_each_columns(columns, threads, |z, column, width| {
                    self.dot_columns(table, row, z, column, width)
                });
            });
        }
    }

    /// Calls `body` with A in the layout that `dots` reads. An arranged row is in the thread's workspace.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn with_arranged_row(&self, body: impl FnOnce(&RowOfA<T>)) {
        let one = self.m == 1 && self.batch == 1;
        let arranged = one.then(|| T::find_arrangement(self.b, self.k, self.b_column)).flatten();
        let Some(ArrangedRow { arrangement, dots }) = arranged else { return body(&RowOfA::InPlace) };
        with_workspace(arrangement.count_floats(self.k), |space| {
            // SAFETY: guaranteed by the caller; the workspace has the requested room.
            unsafe { arrangement.arrange(self.k, self.a, space.as_mut_ptr()) };
            body(&RowOfA::ArrangedRow(space.as_ptr(), dots));
        });
    }

    /// Computes `width` columns of C from `column` on.
    unsafe fn dot_columns(
        &self,
        table: &'static KernelTable,
        row: &RowOfA<T>,
        z: usize,
        column: usize,
        width: usize,
    ) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (a, dots) = match row {
                RowOfA::InPlace => (self.a_of_matrix(z), T::kernels(table).dots[self.m - 1]),
                RowOfA::ArrangedRow(at, dots) => (Left { at: *at, row: 0, k: 1 }, *dots),
            };
            let mut sums = [[0.0; COLUMNS]; MAX_GEMV_ROWS];
            for from in (column..column + width).step_by(COLUMNS) {
                let count = COLUMNS.min(column + width - from);
                let w = self.b.plus(z * self.b_batch + from * self.b_column);
                dots(DotProducts { k: self.k, a, w, step: self.b_column, columns: count }, &mut sums);
                for (i, sums) in sums.iter().enumerate().take(self.m) {
                    for (j, sum) in sums[..count].iter().enumerate() {
                        self.store(z, i, from + j, *sum);
                    }
                }
            }
        }
    }

    /// Products of one A, of few rows, by several weights of one type that are contiguous along k. One parallel pass
    /// computes all of them, with the same results as separate products.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn run_together(products: &[Product<T>], table: &'static KernelTable, threads: usize) {
        let [first, ..] = products else { return };
        let total: usize = products.iter().map(|product| product.n).sum();
        let columns = columns_per_task(first.b.bytes(total * first.k), total, threads);
        let run = |task: usize, row: &RowOfA<T>| {
            let mut skip = task * columns;
            let mut left = columns;
            for product in products {
                let from = skip.min(product.n);
                let width = left.min(product.n - from);
                // SAFETY: guaranteed by the caller; no two tasks share a column.
                unsafe { product.dot_columns(table, row, 0, from, width) };
                (skip, left) = (skip - from, left - width);
            }
        };
        let tasks = total.div_ceil(columns);
        // SAFETY: guaranteed by the caller.
        unsafe {
            let threads = limit_threads(first.m * total * first.k, threads);
            first.with_arranged_row(|row| each_task(threads, tasks, |task| run(task, row)));
        }
    }

    /// Multiplies strips of columns of a row-major B.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn gemv_strips(&self, table: &'static KernelTable, threads: usize) {
        let share = self.n.div_ceil(4 * threads).next_multiple_of(table.panel());
        self.for_each_columns(share.clamp(256, STRIP_COLUMNS), threads, |z, column, width| {
            // SAFETY: guaranteed by the caller; no two tasks share a column, and the workspace holds the strip's sums
            // of all rows.
            with_workspace(self.m * width, |panels| unsafe {
                let sums = &mut panels[..self.m * width];
                sums.fill(0.0);
                (T::kernels(table).strip)(Strip {
                    rows: self.m,
                    k: self.k,
                    a: self.a_of_matrix(z),
                    b: self.b.plus(z * self.b_batch + column),
                    b_row: self.b_row,
                    width,
                    sums: sums.as_mut_ptr(),
                });
                for (i, sums) in sums.chunks(width).enumerate() {
                    for (j, sum) in sums.iter().enumerate() {
                        self.store(z, i, column + j, *sum);
                    }
                }
            })
        });
    }

    /// Calls `task` for each matrix of the batch and each `columns` columns of C, in parallel.
    fn for_each_columns(&self, columns: usize, threads: usize, task: impl Fn(usize, usize, usize) + Sync) {
        let per_matrix = self.n.div_ceil(columns);
        let tasks = self.batch * per_matrix;
        let run = |i: usize| {
            let column = i % per_matrix * columns;
            task(i / per_matrix, column, columns.min(self.n - column));
        };
        each_task(limit_threads(self.batch * self.m * self.n * self.k, threads), tasks, run);
    }

    unsafe fn a_of_matrix(&self, z: usize) -> Left {
        // SAFETY: guaranteed by the caller.
        Left { at: unsafe { self.a.add(z * self.a_batch) }, row: self.a_row, k: self.a_column }
    }

    unsafe fn store(&self, z: usize, row: usize, column: usize, sum: f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let c = self.c.add(z * self.c_batch + row * self.c_row + column);
            let mut v = self.alpha * sum;
            if !self.bias.is_null() {
                v += *self.bias.add(column);
            }
            if self.accumulate {
                v += *c;
            }
            *c = v;
        }
    }
}

/// A in the layout that `dots` reads: in place, or its only row as arranged for B, with the kernel for that.
enum RowOfA<T: Storage> {
    InPlace,
    ArrangedRow(*const f32, DotKernel<T::Position>),
}

// SAFETY: tasks only read it.
unsafe impl<T: Storage> Sync for RowOfA<T> {}

/// Columns per task for a product of `n` columns and `bytes` bytes of B; all threads get the same number of tasks.
fn columns_per_task(bytes: usize, n: usize, threads: usize) -> usize {
    let tasks = bytes.div_ceil(TASK_BYTES).next_multiple_of(threads);
    n.div_ceil(tasks).max(1)
}
