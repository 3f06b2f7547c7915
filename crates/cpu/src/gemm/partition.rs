//! Partition of C into tasks.
//!
//! A task computes some rows and columns of C (task.rs). Each element of C is summed in ascending k, in groups of
//! terms that depend only on the product's sizes. So neither the partition, the blocks of K nor the number of threads
//! changes a bit.

use super::blocking::Blocking;
use super::microkernel::tiles::Tiles;
use crate::tasks::each_task;
use crate::threads::count;

/// Products of fewer multiplications run on one thread: starting a task would cost more.
const MIN_PARALLEL: usize = 50_000;
/// Rows below which a task does not pay for packing B.
const MIN_ROWS: usize = 64;
/// Panels per thread from which one panel more costs little.
const MANY_PANELS: usize = 16;
/// Most panels of a task whose rows are one group.
const MAX_PANELS: usize = 24;

/// The partition of a product [batch, m, n, k].
pub struct Partition {
    sizes: [usize; 4],
    /// Rows per task.
    rows: usize,
    /// Column tasks per matrix; the panels are distributed over them evenly.
    column_tasks: usize,
    panel: usize,
    /// Terms per block of K.
    kc: usize,
}

/// The number of threads, at most `threads`, that a product of `terms` multiplications is worth.
#[inline]
pub fn limit_threads(terms: usize, threads: usize) -> usize {
    if terms < MIN_PARALLEL { 1 } else { threads }
}

/// The part of C that a task computes.
pub struct CBlock {
    pub z: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    pub kc: usize,
}

impl Partition {
    /// Tasks have at most `widest` panels, and as many as fit into the workspace with `kc` terms each.
    pub fn new(
        tiles: &Tiles,
        sizes: [usize; 4],
        kc: usize,
        blocking: &Blocking,
        widest: usize,
        threads: usize,
    ) -> Partition {
        let most = blocking.workspace / kc / tiles.panel();
        Partition::with_panels(tiles, sizes, kc, most.clamp(1, widest), threads)
    }

    /// Tasks whose rows are one group: the same number for each thread, and wide. `None` if there are not enough
    /// columns.
    pub fn single_group(tiles: &Tiles, sizes: [usize; 4], kc: usize, threads: usize) -> Option<Partition> {
        let [batch, _, n, _] = sizes;
        let panels = n.div_ceil(tiles.panel());
        if batch * panels < threads {
            return None;
        }
        let tasks = panels.div_ceil(MAX_PANELS).next_multiple_of(threads.div_ceil(batch).max(1));
        Some(Partition::with_panels(tiles, sizes, kc, panels.div_ceil(tasks), threads))
    }

    /// Tasks have at most `most` panels of `kc` terms.
    pub fn with_panels(
        tiles: &Tiles,
        sizes: [usize; 4],
        kc: usize,
        most: usize,
        threads: usize,
    ) -> Partition {
        let [batch, m, n, _] = sizes;
        let panel = tiles.panel();
        let panels = n.div_ceil(panel);
        let fewest = panels.div_ceil(most);
        // One task has all columns if there are enough rows to split, so that A, the larger factor, is read and copied
        // once.
        let whole = fewest == 1 && m >= 4 * MIN_ROWS;
        // Threads should finish together: few tasks are split into the same number for each thread, of equal width if
        // possible. Otherwise the panels are distributed evenly if one panel more is little for a thread.
        let shared = |tasks: &usize| (batch * tasks).is_multiple_of(threads);
        let equal = |tasks: &usize| panels.is_multiple_of(*tasks);
        let mut column_tasks = fewest;
        if !whole && batch * fewest < 8 * threads {
            let narrower = || fewest..=panels.min(2 * fewest);
            let little = m < 2 * MIN_ROWS || batch * panels >= MANY_PANELS * threads;
            let even = narrower().find(|tasks| equal(tasks) && shared(tasks));
            let even = even.or_else(|| if little { narrower().find(shared) } else { narrower().find(equal) });
            column_tasks = even.unwrap_or(fewest);
        }
        let outer = batch * column_tasks;
        // Rows are split until all threads have the same amount of work.
        let fewest = if column_tasks == 1 { MIN_ROWS / 2 } else { MIN_ROWS };
        let most = (m / fewest).max(1);
        let even = |splits: usize| outer * splits >= 8 * threads || (outer * splits).is_multiple_of(threads);
        let splits = (1..=most).find(|c| even(*c)).unwrap_or(most);
        let rows = m.div_ceil(tiles.rows()).div_ceil(splits) * tiles.rows();
        Partition { sizes, rows, column_tasks, panel, kc }
    }

    /// Limits tasks to `most` rows.
    pub fn limit_rows(self, tiles: &Tiles, most: usize) -> Partition {
        // Each task is split into equal parts, which keeps the threads balanced.
        let rows = self.rows.div_ceil(self.rows.div_ceil(most));
        Partition { rows: rows.next_multiple_of(tiles.rows()), ..self }
    }

    /// Calls `task` for every block, on the current pool.
    pub fn run(&self, task: impl Fn(CBlock) + Sync) {
        let [batch, m, n, k] = self.sizes;
        let (row_tasks, panels) = (m.div_ceil(self.rows), n.div_ceil(self.panel));
        let start = |task: usize| (task * panels / self.column_tasks * self.panel).min(n);
        let run = |i: usize| {
            let (i, row) = (i / row_tasks, i % row_tasks * self.rows);
            let (z, i) = (i / self.column_tasks, i % self.column_tasks);
            let (column, end) = (start(i), start(i + 1));
            let rows = self.rows.min(m - row);
            task(CBlock { z, row, rows, column, columns: end - column, kc: self.kc });
        };
        let tasks = batch * self.column_tasks * row_tasks;
        each_task(limit_threads(batch * m * n * k, count()), tasks, run);
    }
}

impl CBlock {
    /// Calls `tile` with the first row and the number of rows of each tile. Rows are distributed evenly, in multiples
    /// of the tiles' row granularity, so that no tile is left with few rows.
    pub fn for_each_tile(&self, tiles: &Tiles, mut tile: impl FnMut(usize, usize)) {
        let slivers = self.rows.div_ceil(tiles.rows());
        let steps = self.rows.div_ceil(tiles.step);
        let start = |s: usize| (s * steps / slivers * tiles.step).min(self.rows);
        for s in 0..slivers {
            tile(self.row + start(s), start(s + 1) - start(s));
        }
    }
}
