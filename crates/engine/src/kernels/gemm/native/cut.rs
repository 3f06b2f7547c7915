//! How a product is cut into tasks.
//!
//! C is cut into tasks of some columns and some rows (panels.rs). An element of C is summed in ascending k, so many
//! terms at a time as the product's sizes alone decide: the cut into tasks and into parts of K that are packed, and with it
//! the number of threads, changes no bit.

use super::blocking::Blocking;
use super::tiles::Tiles;
use crate::kernel::native::{count, each_task};

/// Products of fewer terms run on one thread: starting a task costs more.
const SMALL: usize = 50_000;
/// Rows below which a task does not pay for packing B.
const FEW_ROWS: usize = 64;
/// Panels of a thread of which one more is little.
const MANY: usize = 16;
/// Panels of a task whose rows are taken at once.
const WIDEST: usize = 24;

/// How [batch, m, n, k] is cut into tasks.
pub struct Cut {
    sizes: [usize; 4],
    /// Rows of a task.
    rows: usize,
    /// Tasks that all panels are spread over, the same number each or one more.
    column_tasks: usize,
    panel: usize,
    /// Terms that are packed at a time.
    part: usize,
}

/// Of `threads`, those that a product of so many terms is worth.
pub fn worth(terms: usize, threads: usize) -> usize {
    if terms < SMALL { 1 } else { threads }
}

/// What one task computes.
pub struct Block {
    pub z: usize,
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
    pub part: usize,
}

impl Cut {
    /// Tasks take `widest` panels at most, and no more than the workspace holds, `part` terms of them at a time.
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

    /// Tasks of rows that are taken at once: as many for each thread, and wide. None where the columns are not enough
    /// for the threads.
    pub fn once(tiles: &Tiles, sizes: [usize; 4], part: usize, threads: usize) -> Option<Cut> {
        let [batch, _, n, _] = sizes;
        let panels = n.div_ceil(tiles.panel());
        if batch * panels < threads {
            return None;
        }
        let tasks = panels.div_ceil(WIDEST).next_multiple_of(threads.div_ceil(batch).max(1));
        Some(Cut::of_parts(tiles, sizes, part, panels.div_ceil(tasks), threads))
    }

    /// Tasks take `most` panels at most, and `part` terms of them at a time.
    pub fn of_parts(tiles: &Tiles, sizes: [usize; 4], part: usize, most: usize, threads: usize) -> Cut {
        let [batch, m, n, _] = sizes;
        let panel = tiles.panel();
        let panels = n.div_ceil(panel);
        let fewest = panels.div_ceil(most);
        // All columns in one task where rows are there to cut: A, which is the larger, is read and copied once.
        let whole = fewest == 1 && m >= 4 * FEW_ROWS;
        // One thread would wait for the others' last task: as many for each where there are few, of one width if they can
        // be. Where they cannot, panels are spread over as many for each if one more is little of a thread's: 86 of them
        // over 18 tasks, where the last of 18 was of one and 512 × 4096 × 4096 took 1% longer.
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
        // Rows are cut until every thread has work, and as much as the others.
        let fewest = if column_tasks == 1 { FEW_ROWS / 2 } else { FEW_ROWS };
        let most = (m / fewest).max(1);
        let even = |cuts: usize| outer * cuts >= 8 * threads || (outer * cuts).is_multiple_of(threads);
        let cuts = (1..=most).find(|c| even(*c)).unwrap_or(most);
        let rows = m.div_ceil(tiles.rows()).div_ceil(cuts) * tiles.rows();
        Cut { sizes, rows, column_tasks, panel, part }
    }

    /// With tasks of at most `most` rows.
    pub fn of_rows(self, tiles: &Tiles, most: usize) -> Cut {
        // Each task in equal ones, so that threads that had as much as the others still have.
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
    /// Calls `tile` with the first row and the number of rows of each tile: they are spread evenly, so
    /// that none is left with few, in steps that tiles are as quick as.
    pub fn slivers(&self, tiles: &Tiles, mut tile: impl FnMut(usize, usize)) {
        let slivers = self.rows.div_ceil(tiles.rows());
        let steps = self.rows.div_ceil(tiles.step);
        let start = |s: usize| (s * steps / slivers * tiles.step).min(self.rows);
        for s in 0..slivers {
            tile(self.row + start(s), start(s + 1) - start(s));
        }
    }
}
