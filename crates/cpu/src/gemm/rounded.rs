//! Products by a bf16 weight whose other factor is rounded to bf16; sums are in f32.
//!
//! Where the processor multiplies pairs of bf16, both factors are packed as pairs, or as whole AMX tiles (amx.rs).
//! Otherwise, and where pairs were not measured to be faster (choice), factors are rounded all the same and multiplied
//! as f32, so that the precision setting means the same rounding everywhere. As elsewhere, K alone decides how an
//! element of C is summed.

use half::bf16;

use super::arguments::MAX_GEMV_ROWS;
use super::blocking::blocking;
use super::cache_line::{LINE, choose_leading_dimension};
use super::pack::a::{LayoutA, PackedA};
use super::partition::Partition;
use super::product::Product;
use super::table::KernelTable;
use super::task::{TaskConfig, is_single_group};
use super::workspace::with_shared;

/// Elements of a thread's panels: a little more than half of a usual L2.
const PANEL_ELEMENTS: usize = 144 * 1024;
/// Most terms of A that are rounded together, and for which sums are kept from block to block; K alone decides. The
/// usual widths of models are one or two segments.
const MAX_SEGMENT: usize = 4608;
/// Elements of packed A that are rounded together: 16 MiB, plus padding.
const ROUNDED_ELEMENTS: usize = 4 << 20;
/// Most panels, and tiles of rows, of a task that keeps its sums from block to block, unless all rows are one group:
/// 640 KiB of an L2 of 2 MiB.
const MAX_KEPT_PANELS: usize = 10;
const MAX_KEPT_ROWS: usize = 512;
/// Panels from which a task spends little on packing and rounding.
const WIDE_TASK: usize = 8;

impl Product<bf16> {
    /// As for `run`, with A rounded to bf16. Few rows are not rounded: such products are bound by the bytes of B.
    ///
    /// # Safety
    /// As for `run`.
    pub unsafe fn run_rounded(&self, table: &'static KernelTable, threads: usize) {
        if self.m <= MAX_GEMV_ROWS {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.run(table, threads) };
        }
        if let Some((first, second)) = self.split_second(false) {
            // SAFETY: guaranteed by the caller.
            return unsafe {
                first.run_rounded(table, threads);
                second.run(table, threads);
            };
        }
        let rounded = &table.rounded;
        let k_blocks = self.k.div_ceil(rounded.register_kc);
        // Whole squares of terms, which the packing transposes.
        let kc = self.k.div_ceil(k_blocks).next_multiple_of(2 * LINE);
        let segment = (MAX_SEGMENT / kc).max(1) * kc;
        let a_row = segment.min(self.k.next_multiple_of(kc)) / rounded.terms_per_element;
        let most = (ROUNDED_ELEMENTS / a_row).max(1);
        if self.batch * self.m <= most {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.run_segments(table, [kc, segment], threads) };
        }
        let rows = self.m.div_ceil(self.m.div_ceil(most)).next_multiple_of(rounded.tiles.rows());
        for z in 0..self.batch {
            for row in (0..self.m).step_by(rows) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let block_rows = self.restrict_rows(z, row, rows.min(self.m - row));
                    block_rows.run_segments(table, [kc, segment], threads);
                }
            }
        }
    }

    /// The product with A rounded once for all tasks, one segment of K at a time.
    unsafe fn run_segments(&self, table: &KernelTable, [kc, segment]: [usize; 2], threads: usize) {
        let rounded = &table.rounded;
        let interleaved = rounded.tiles.step;
        let row = choose_leading_dimension(interleaved * kc / rounded.terms_per_element);
        let size = self.batch * self.m.div_ceil(interleaved) * row;
        with_shared(size * segment.min(self.k).div_ceil(kc), |space| {
            let packed = PackedA { at: space.as_mut_ptr(), interleaved, row, k_block_stride: size };
            for from in (0..self.k).step_by(segment) {
                let k = segment.min(self.k - from);
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let segment_product = Product {
                        k,
                        a: self.a.add(from * self.a_column),
                        b: self.b.add(from * self.b_row),
                        accumulate: self.accumulate || from > 0,
                        bias: if from > 0 { std::ptr::null() } else { self.bias },
                        second: self.second.filter(|_| from + k == self.k),
                        ..*self
                    };
                    segment_product.pack_a(rounded.pack_a, packed, kc, threads);
                    segment_product.run_packed(table, packed, kc, threads);
                }
            }
        });
    }

    /// The product by rounded and packed rows.
    unsafe fn run_packed(&self, table: &KernelTable, packed: PackedA, kc: usize, threads: usize) {
        let rounded = &table.rounded;
        let config = TaskConfig {
            pack: rounded.pack_b,
            tiles: &rounded.tiles,
            terms_per_element: rounded.terms_per_element,
            term_granularity: rounded.term_granularity,
            layout_a: Some(LayoutA::PackedA(packed)),
            in_place: false,
            group: blocking().group,
            register_kc: kc,
        };
        let sizes = [self.batch, self.m, self.n, self.k];
        if is_single_group(self.m, kc / config.terms_per_element)
            && let Some(partition) = Partition::single_group(config.tiles, sizes, kc, threads)
        {
            // SAFETY: guaranteed by the caller; no two blocks share an element of C.
            return partition.run(|block| unsafe { self.run_task(table, &block, config) });
        }
        let panels = self.n.div_ceil(config.tiles.panel());
        let mut most = (PANEL_ELEMENTS / (kc / config.terms_per_element) / config.tiles.panel()).max(1);
        if config.tiles.kept_sums > 0 && kc < self.k {
            most = MAX_KEPT_PANELS;
        }
        // The same number of tasks for each thread, if they stay wide.
        let tasks = panels.div_ceil(most).next_multiple_of(threads);
        if panels >= WIDE_TASK * tasks {
            most = panels.div_ceil(tasks);
        }
        let mut partition = Partition::with_panels(config.tiles, sizes, kc, most, threads);
        if config.tiles.kept_sums > 0 && kc < self.k {
            partition = partition.limit_rows(config.tiles, MAX_KEPT_ROWS);
        }
        // SAFETY: guaranteed by the caller; no two blocks share an element of C.
        partition.run(|block| unsafe { self.run_task(table, &block, config) });
    }
}
