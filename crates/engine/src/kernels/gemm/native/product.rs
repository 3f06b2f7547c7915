//! A product over raw operands, and by which loops it runs.

use super::cut::{Block, Cut, PANELS_OF_A_TASK, PART, SMALL, part_of};
use super::dot::{COLUMNS, FEW, Strip};
use super::loops::{Arranged, Dots, Loops, Round, Stored};
use super::microkernel::{Left, Settle};
use super::pack::At;
use super::panels::{Kit, Lay, ONCE};
use super::workspace::{LINE, workspace};
use crate::kernel::native::each_task;

/// Bytes of B, about, that a task over few rows reads: enough that reading runs ahead.
const READ: usize = 64 * 1024;
/// Columns of a strip: 4 KiB of each row of B in a piece.
const STRIP: usize = 1024;
/// Tiles of rows for which B is read where it lies, if it lies row-major.
const IN_PLACE_TILES: usize = 4;
/// Elements apart that rows fall on one another in the first cache, whose ways are 4 KiB.
pub const ALIASED: usize = 1024;

/// A product over raw operands; the steps are in elements.
#[derive(Clone, Copy)]
pub struct Product<T: Stored> {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32,
    pub a_batch: usize,
    pub a_row: usize,
    pub a_column: usize,
    pub b: T::At,
    pub b_batch: usize,
    pub b_row: usize,
    pub b_column: usize,
    pub c: *mut f32,
    pub c_batch: usize,
    pub c_row: usize,
    pub alpha: f32,
    pub accumulate: bool,
    pub bias: *const f32,
    pub second: Option<Second>,
}

/// A second part of the sum of one matrix: c += alpha · A·B, over `k` terms, once the first has settled.
#[derive(Clone, Copy)]
pub struct Second {
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
unsafe impl<T: Stored> Sync for Product<T> {}
// SAFETY: tasks read it alone.
unsafe impl Sync for Second {}

impl<T: Stored> Product<T> {
    /// C = A·Bᵀ of matrices whose rows lie one after another.
    pub fn by_rows([m, n, k]: [usize; 3], a: *const f32, b: T::At, c: *mut f32) -> Product<T> {
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

    /// Runs on the current pool.
    ///
    /// # Safety
    /// The operands reach as far as the sizes and steps say, and nothing else writes C.
    pub unsafe fn run(&self, loops: &'static Loops, threads: usize) {
        let dots = self.m <= FEW && self.b_row == 1 && self.a_column == 1;
        let strips = self.m <= FEW / 2 && self.b_column == 1;
        if let Some((first, second)) = self.apart(self.m <= FEW) {
            // SAFETY: the caller's.
            return unsafe {
                first.run(loops, threads);
                second.run(loops, threads);
            };
        }
        if dots {
            // SAFETY: the caller's.
            return unsafe { self.dots(loops, threads) };
        }
        if strips {
            // SAFETY: the caller's.
            return unsafe { self.strips(loops, threads) };
        }
        let sizes = [self.batch, self.m, self.n, self.k];
        let cut = match self.m <= ONCE * loops.tiles.rows() {
            true => Cut::once(&loops.tiles, sizes, part_of(self.k), threads),
            false => Cut::new(&loops.tiles, sizes, PANELS_OF_A_TASK, threads),
        };
        // SAFETY: the caller's; blocks have no element of C in common.
        cut.run(|block| unsafe { self.block(loops, block) });
    }

    /// The first part and the second as products of their own, where tiles do not take both: `few` rows may be
    /// no tiles, and a second part of many terms is summed in parts of its own.
    pub(super) fn apart(&self, few: bool) -> Option<(Product<T>, Product<f32>)> {
        let second = self.second.filter(|s| few || s.k > PART)?;
        let Second { k, a, a_row, a_column, b, b_row, b_column, alpha } = second;
        debug_assert!(self.batch == 1, "a second segment is of one matrix");
        let apart = Product {
            a_row,
            a_column,
            b_row,
            b_column,
            c_row: self.c_row,
            alpha,
            accumulate: true,
            ..Product::by_rows([self.m, self.n, k], a, b, self.c)
        };
        Some((Product { second: None, ..*self }, apart))
    }

    unsafe fn block(&self, loops: &'static Loops, block: Block) {
        // B in place where it lies as a panel does and is read too few times to pay for a copy.
        let few = block.rows <= IN_PLACE_TILES * loops.tiles.rows() || self.n <= loops.panel();
        let in_place = T::IS_F32 && self.b_column == 1 && few;
        // A's rows are copied apart where they would push one another out of the first cache; its columns, of which
        // each term's few elements are in a line of their own, where they are read often enough.
        let aliased =
            self.a_column == 1 && self.a_row.is_multiple_of(ALIASED) && block.rows > loops.tiles.rows();
        let turned = self.a_row == 1 && self.a_column > LINE && block.columns > loops.panel();
        let left = match (aliased, turned) {
            (true, _) => Some(Lay::Rows(copy as Round)),
            (_, true) => Some(Lay::Columns),
            _ => None,
        };
        let kit = Kit { pack: T::loops(loops).pack, tiles: &loops.tiles, terms: 1, whole: 1, left, in_place };
        // SAFETY: the caller's.
        unsafe { self.task(loops, block, kit) };
    }

    /// A from `row` and term `from` on.
    pub(super) unsafe fn rows(&self, block: &Block, row: usize, from: usize) -> Left {
        let at = block.z * self.a_batch + row * self.a_row + from * self.a_column;
        // SAFETY: the caller's.
        Left { at: unsafe { self.a.add(at) }, row: self.a_row, k: self.a_column }
    }

    /// What becomes of a tile's sums at `row` and `column`: a later part of K is added to the first,
    /// which the bias is added to.
    pub(super) unsafe fn settlement(&self, block: &Block, row: usize, column: usize, first: bool) -> Settle {
        let bias =
            // SAFETY: the caller's.
            if first && !self.bias.is_null() { unsafe { self.bias.add(column) } } else { std::ptr::null() };
        Settle {
            // SAFETY: the caller's.
            c: unsafe { self.c.add(block.z * self.c_batch + row * self.c_row + column) },
            row: self.c_row,
            alpha: self.alpha,
            bias,
            accumulate: self.accumulate || !first,
        }
    }

    /// Rows of B that lie along k, each with all rows of A.
    ///
    /// # Safety
    /// As `run`.
    unsafe fn dots(&self, loops: &'static Loops, threads: usize) {
        let columns = columns_of_a_task(self.b.bytes(self.n * self.k), self.n, threads);
        // SAFETY: the caller's; no two tasks have columns in common.
        unsafe {
            self.arranged(|row| {
                self.few(columns, threads, |z, column, width| self.dots_of(loops, row, z, column, width));
            });
        }
    }

    /// Calls `body` with A as `dots` reads it. What is arranged lies in the thread's workspace.
    ///
    /// # Safety
    /// As `run`.
    unsafe fn arranged(&self, body: impl FnOnce(&Row<T>)) {
        let one = self.m == 1 && self.batch == 1;
        let arranged = one.then(|| T::arranged(self.b, self.k, self.b_column)).flatten();
        let Some(Arranged { arrangement, dots }) = arranged else { return body(&Row::AsItLies) };
        workspace(arrangement.room(self.k), |space| {
            // SAFETY: the caller's; there is as much room as it asks for.
            unsafe { arrangement.arrange(self.k, self.a, space.as_mut_ptr()) };
            body(&Row::Arranged(space.as_ptr(), dots));
        });
    }

    /// Columns of a product that `dots` serves. `row` is A where it is arranged.
    unsafe fn dots_of(&self, loops: &'static Loops, row: &Row<T>, z: usize, column: usize, width: usize) {
        // SAFETY: the caller's.
        unsafe {
            let (a, dots) = match row {
                Row::AsItLies => (self.left(z), T::loops(loops).dots[self.m - 1]),
                Row::Arranged(at, dots) => (Left { at: *at, row: 0, k: 1 }, *dots),
            };
            let mut sums = [[0.0; COLUMNS]; FEW];
            for from in (column..column + width).step_by(COLUMNS) {
                let count = COLUMNS.min(column + width - from);
                let b = self.b.plus(z * self.b_batch + from * self.b_column);
                dots(self.k, a, b, self.b_column, count, &mut sums);
                for (i, sums) in sums.iter().enumerate().take(self.m) {
                    for (j, sum) in sums[..count].iter().enumerate() {
                        self.settle(z, i, from + j, *sum);
                    }
                }
            }
        }
    }

    /// Products of one A, of few rows, by weights of one type that lie along k: what each gives by itself, in one
    /// pass, so that threads meet once.
    ///
    /// # Safety
    /// As `run`.
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
                // SAFETY: the caller's; no two tasks have columns in common.
                unsafe { product.dots_of(loops, row, 0, from, width) };
                (skip, left) = (skip - from, left - width);
            }
        };
        let tasks = total.div_ceil(columns);
        // SAFETY: the caller's.
        unsafe {
            first.arranged(|row| match first.m * total * first.k < SMALL {
                true => (0..tasks).for_each(|task| run(task, row)),
                false => each_task(threads, tasks, |task| run(task, row)),
            });
        }
    }

    /// Strips of B's columns, where its rows lie along them.
    ///
    /// # Safety
    /// As `run`.
    unsafe fn strips(&self, loops: &'static Loops, threads: usize) {
        let share = self.n.div_ceil(4 * threads).next_multiple_of(loops.panel());
        self.few(share.clamp(256, STRIP), threads, |z, column, width| {
            // SAFETY: the caller's; no two tasks have columns in common, and the panels hold all rows' sums of the
            // strip.
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
                        self.settle(z, i, column + j, *sum);
                    }
                }
            })
        });
    }

    /// Calls `task` for every matrix of the batch and every `columns` columns of C.
    fn few(&self, columns: usize, threads: usize, task: impl Fn(usize, usize, usize) + Sync) {
        let per_matrix = self.n.div_ceil(columns);
        let tasks = self.batch * per_matrix;
        let run = |i: usize| {
            let column = i % per_matrix * columns;
            task(i / per_matrix, column, columns.min(self.n - column));
        };
        if self.batch * self.m * self.n * self.k < SMALL {
            (0..tasks).for_each(run);
        } else {
            each_task(threads, tasks, run);
        }
    }

    unsafe fn left(&self, z: usize) -> Left {
        // SAFETY: the caller's.
        Left { at: unsafe { self.a.add(z * self.a_batch) }, row: self.a_row, k: self.a_column }
    }

    unsafe fn settle(&self, z: usize, row: usize, column: usize, sum: f32) {
        // SAFETY: the caller's.
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

/// A as `dots` reads it: as it lies, or its one row as it is arranged for B, and what takes that.
enum Row<T: Stored> {
    AsItLies,
    Arranged(*const f32, Dots<T::At>),
}

// SAFETY: tasks read it alone.
unsafe impl<T: Stored> Sync for Row<T> {}

/// Of `n` columns of a product of few rows, `bytes` of B: as many tasks for each thread.
fn columns_of_a_task(bytes: usize, n: usize, threads: usize) -> usize {
    let tasks = bytes.div_ceil(READ).next_multiple_of(threads);
    n.div_ceil(tasks).max(1)
}

/// Rows of A as they are, `to_row` elements apart.
unsafe fn copy(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    for i in 0..rows {
        // SAFETY: the caller's.
        unsafe { std::ptr::copy_nonoverlapping(a.at.add(i * a.row), to.add(i * to_row), k) };
    }
}
