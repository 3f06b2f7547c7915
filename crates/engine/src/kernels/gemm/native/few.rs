//! Products of few rows: B is read once, by rows (`dots`) or by columns (`strips`), whichever is contiguous.

use super::cut::worth;
use super::dot::{COLUMNS, DotProducts, FEW, Strip};
use super::loops::{Arranged, Dots, Loops, Stored};
use super::microkernel::Left;
use super::pack::At;
use super::product::Product;
use super::workspace::workspace;
use crate::kernel::native::each_task;

/// Bytes of B per task, approximately: enough for sequential prefetching to be effective.
const READ: usize = 64 * 1024;
/// Columns of a strip: 4 KiB of each row of B.
const STRIP: usize = 1024;

impl<T: Stored> Product<T> {
    /// Multiplies rows of B that are contiguous along k by all rows of A.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn dots(&self, loops: &'static Loops, threads: usize) {
        let columns = columns_of_a_task(self.b.bytes(self.n * self.k), self.n, threads);
        // SAFETY: guaranteed by the caller; no two tasks share a column.
        unsafe {
            self.arranged(|row| {
                self.few(columns, threads, |z, column, width| self.dots_of(loops, row, z, column, width));
            });
        }
    }

    /// Calls `body` with A in the layout that `dots` reads. An arranged row is in the thread's workspace.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn arranged(&self, body: impl FnOnce(&Row<T>)) {
        let one = self.m == 1 && self.batch == 1;
        let arranged = one.then(|| T::arranged(self.b, self.k, self.b_column)).flatten();
        let Some(Arranged { arrangement, dots }) = arranged else { return body(&Row::AsItLies) };
        workspace(arrangement.room(self.k), |space| {
            // SAFETY: guaranteed by the caller; the workspace has the requested room.
            unsafe { arrangement.arrange(self.k, self.a, space.as_mut_ptr()) };
            body(&Row::Arranged(space.as_ptr(), dots));
        });
    }

    /// Computes `width` columns of C from `column` on.
    unsafe fn dots_of(&self, loops: &'static Loops, row: &Row<T>, z: usize, column: usize, width: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (a, dots) = match row {
                Row::AsItLies => (self.left(z), T::loops(loops).dots[self.m - 1]),
                Row::Arranged(at, dots) => (Left { at: *at, row: 0, k: 1 }, *dots),
            };
            let mut sums = [[0.0; COLUMNS]; FEW];
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
    pub unsafe fn run_together(products: &[Product<T>], loops: &'static Loops, threads: usize) {
        let [first, ..] = products else { return };
        let total: usize = products.iter().map(|product| product.n).sum();
        let columns = columns_of_a_task(first.b.bytes(total * first.k), total, threads);
        let run = |task: usize, row: &Row<T>| {
            let mut skip = task * columns;
            let mut left = columns;
            for product in products {
                let from = skip.min(product.n);
                let width = left.min(product.n - from);
                // SAFETY: guaranteed by the caller; no two tasks share a column.
                unsafe { product.dots_of(loops, row, 0, from, width) };
                (skip, left) = (skip - from, left - width);
            }
        };
        let tasks = total.div_ceil(columns);
        // SAFETY: guaranteed by the caller.
        unsafe {
            let threads = worth(first.m * total * first.k, threads);
            first.arranged(|row| each_task(threads, tasks, |task| run(task, row)));
        }
    }

    /// Multiplies strips of columns of a row-major B.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn strips(&self, loops: &'static Loops, threads: usize) {
        let share = self.n.div_ceil(4 * threads).next_multiple_of(loops.panel());
        self.few(share.clamp(256, STRIP), threads, |z, column, width| {
            // SAFETY: guaranteed by the caller; no two tasks share a column, and the workspace holds the strip's sums
            // of all rows.
            workspace(self.m * width, |panels| unsafe {
                let sums = &mut panels[..self.m * width];
                sums.fill(0.0);
                (T::loops(loops).strip)(Strip {
                    rows: self.m,
                    k: self.k,
                    a: self.left(z),
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
    fn few(&self, columns: usize, threads: usize, task: impl Fn(usize, usize, usize) + Sync) {
        let per_matrix = self.n.div_ceil(columns);
        let tasks = self.batch * per_matrix;
        let run = |i: usize| {
            let column = i % per_matrix * columns;
            task(i / per_matrix, column, columns.min(self.n - column));
        };
        each_task(worth(self.batch * self.m * self.n * self.k, threads), tasks, run);
    }

    unsafe fn left(&self, z: usize) -> Left {
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
enum Row<T: Stored> {
    AsItLies,
    Arranged(*const f32, Dots<T::At>),
}

// SAFETY: tasks only read it.
unsafe impl<T: Stored> Sync for Row<T> {}

/// Columns per task for a product of `n` columns and `bytes` bytes of B; all threads get the same number of tasks.
fn columns_of_a_task(bytes: usize, n: usize, threads: usize) -> usize {
    let tasks = bytes.div_ceil(READ).next_multiple_of(threads);
    n.div_ceil(tasks).max(1)
}
