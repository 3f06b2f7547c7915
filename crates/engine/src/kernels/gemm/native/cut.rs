//! Partition of C into tasks.
//!
//! A task computes some rows and columns of C (panels.rs). Each element of C is summed in ascending k, in groups of
//! terms that depend only on the product's sizes. So neither the partition, the blocks of K nor the number of threads
//! changes a bit.

use super::blocking::Blocking;
use super::tiles::Tiles;
use crate::kernel::native::{count, each_task};

/// Products of fewer multiplications run on one thread: starting a task would cost more.
const SMALL: usize = 50_000;
/// Rows below which a task does not pay for packing B.
const FEW_ROWS: usize = 64;
/// Panels per thread from which one panel more costs little.
const MANY: usize = 16;
/// Most panels of a task whose rows are one group.
const WIDEST: usize = 24;

/// The partition of a product [batch, m, n, k].
pub struct Cut {
    sizes: [usize; 4],
    /// Rows per task.
    rows: usize,
    /// Column tasks per matrix; the panels are distributed over them evenly.
    column_tasks: usize,
    panel: usize,
    /// Terms per block of K.
    part: usize,
}

/// The number of threads, at most `threads`, that a product of `terms` multiplications is worth.
pub fn worth(terms: usize, threads: usize) -> usize {
    if terms < SMALL { 1 } else { threads }
}

/// The part of C that a task computes.
pub struct Block {
    pub z: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    pub part: usize,
}

impl Cut {
    /// Tasks have at most `widest` panels, and as many as fit into the workspace with `part` terms each.
    pub fn new(
        tiles: &Tiles,
        sizes: [usize; 4],
        part: usize,
        blocking: &Blocking,
        widest: usize,
        threads: usize,
    ) -> Cut {
        let most = blocking.workspace / part / tiles.panel();
        Cut::of_parts(tiles, sizes, part, most.clamp(1, widest), threads)
    }

    /// Tasks whose rows are one group: the same number for each thread, and wide. `None` if there are not enough
    /// columns.
    pub fn once(tiles: &Tiles, sizes: [usize; 4], part: usize, threads: usize) -> Option<Cut> {
        let [batch, _, n, _] = sizes;
        let panels = n.div_ceil(tiles.panel());
        if batch * panels < threads {
            return None;
        }
        let tasks = panels.div_ceil(WIDEST).next_multiple_of(threads.div_ceil(batch).max(1));
        Some(Cut::of_parts(tiles, sizes, part, panels.div_ceil(tasks), threads))
    }

    /// Tasks have at most `most` panels of `part` terms.
    pub fn of_parts(tiles: &Tiles, sizes: [usize; 4], part: usize, most: usize, threads: usize) -> Cut {
        let [batch, m, n, _] = sizes;
        let panel = tiles.panel();
        let panels = n.div_ceil(panel);
        let fewest = panels.div_ceil(most);
        // One task has all columns if there are enough rows to split, so that A, the larger factor, is read and copied
        // once.
        let whole = fewest == 1 && m >= 4 * FEW_ROWS;
        // Threads should finish together: few tasks are split into the same number for each thread, of equal width if
        // possible. Otherwise the panels are distributed evenly if one panel more is little for a thread.
        let shared = |tasks: &usize| (batch * tasks).is_multiple_of(threads);
        let equal = |tasks: &usize| panels.is_multiple_of(*tasks);
        let mut column_tasks = fewest;
        if !whole && batch * fewest < 8 * threads {
            let narrower = || fewest..=panels.min(2 * fewest);
            let little = m < 2 * FEW_ROWS || batch * panels >= MANY * threads;
            let even = narrower().find(|tasks| equal(tasks) && shared(tasks));
            let even = even.or_else(|| if little { narrower().find(shared) } else { narrower().find(equal) });
            column_tasks = even.unwrap_or(fewest);
        }
        let outer = batch * column_tasks;
        // Rows are split until all threads have the same amount of work.
        let fewest = if column_tasks == 1 { FEW_ROWS / 2 } else { FEW_ROWS };
        let most = (m / fewest).max(1);
        let even = |cuts: usize| outer * cuts >= 8 * threads || (outer * cuts).is_multiple_of(threads);
        let cuts = (1..=most).find(|c| even(*c)).unwrap_or(most);
        let rows = m.div_ceil(tiles.rows()).div_ceil(cuts) * tiles.rows();
        Cut { sizes, rows, column_tasks, panel, part }
    }

    /// Limits tasks to `most` rows.
    pub fn of_rows(self, tiles: &Tiles, most: usize) -> Cut {
        // Each task is split into equal parts, which keeps the threads balanced.
        let rows = self.rows.div_ceil(self.rows.div_ceil(most));
        Cut { rows: rows.next_multiple_of(tiles.rows()), ..self }
    }

    /// Calls `task` for every block, on the current pool.
    pub fn run(&self, task: impl Fn(Block) + Sync) {
        let [batch, m, n, k] = self.sizes;
        let (row_tasks, panels) = (m.div_ceil(self.rows), n.div_ceil(self.panel));
        let start = |task: usize| (task * panels / self.column_tasks * self.panel).min(n);
        let run = |i: usize| {
            let (i, row) = (i / row_tasks, i % row_tasks * self.rows);
            let (z, i) = (i / self.column_tasks, i % self.column_tasks);
            let (column, end) = (start(i), start(i + 1));
            let rows = self.rows.min(m - row);
            task(Block { z, row, rows, column, columns: end - column, part: self.part });
        };
        let tasks = batch * self.column_tasks * row_tasks;
        each_task(worth(batch * m * n * k, count()), tasks, run);
    }
}

impl Block {
    /// Calls `tile` with the first row and the number of rows of each tile. Rows are distributed evenly, in multiples
    /// of the tiles' row granularity, so that no tile is left with few rows.
    pub fn slivers(&self, tiles: &Tiles, mut tile: impl FnMut(usize, usize)) {
        let slivers = self.rows.div_ceil(tiles.rows());
        let steps = self.rows.div_ceil(tiles.step);
        let start = |s: usize| (s * steps / slivers * tiles.step).min(self.rows);
        for s in 0..slivers {
            tile(self.row + start(s), start(s + 1) - start(s));
        }
    }
}
