//! Prefetching and packing ahead, during the products of a run of panels.

use super::{KBlock, Task, TaskConfig};
use crate::gemm::arguments::At;
use crate::gemm::microkernel::packs;
use crate::gemm::microkernel::prefetch::{Prefetch, StridedPrefetch};
use crate::gemm::pack::a::LayoutA;
use crate::gemm::pack::interleaved::InterleavedPacking;
use crate::gemm::table::Storage;

/// Columns of a row-major B that are prefetched, or packed, together: their elements of a row are in a few cache lines.
const RUN: usize = 64;

impl<T: Storage> Task<'_, T> {
    /// Panels per run, which are prefetched or packed together. A row-major B has several, at most half of the task's
    /// panels.
    pub(super) fn run_length(&self) -> usize {
        let panels = self.block.columns.div_ceil(self.panel());
        if self.product.b_row == 1 { 1 } else { (RUN / self.panel()).clamp(1, panels.div_ceil(2)) }
    }

    /// Starts to prefetch, or to pack, a later run of panels during the products of the run of panel `i`, which take
    /// `steps` steps. For the first group of tiles this is the next run; at the last run of the last group it is the
    /// first run of the next block of K.
    ///
    /// # Safety
    /// As for `run_k_block`; earlier packing ahead is finished, and in the last group no tile needs the panels before
    /// `i` again.
    pub(super) unsafe fn start_ahead(
        &self,
        k_block: &KBlock,
        i: usize,
        [first, last]: [bool; 2],
        steps: usize,
        ahead: &mut Prefetch,
    ) {
        ahead.panels = StridedPrefetch::nothing();
        let (next, panels) = (i + self.run_length(), self.block.columns.div_ceil(self.panel()));
        let after = k_block.from + k_block.terms;
        let (from, first_panel) = match next < panels {
            _ if self.packs_row_by_row() => return,
            true if first => (k_block.from, next),
            false if last && after < self.product.k => (after, 0),
            _ => return,
        };
        let (panel, terms) = (self.panel(), self.terms(from));
        let j = first_panel * panel;
        let (there, columns) =
            (self.source(from, j).0, (self.run_length() * panel).min(self.block.columns - j));
        let whole = columns / panel;
        // If a task has one run, its buffer is still in use, so the next block's run is only prefetched.
        if self.packs_ahead() && whole > 0 && first_panel != i {
            let (at, k) = (there.at.address().cast(), self.config.elements(terms));
            let to = self.panel_at(self.space.panels, j, k);
            // SAFETY: guaranteed by the caller; the run's buffer is after the panels in use, or before them where no
            // tile needs it again.
            ahead.packing = Some(unsafe {
                InterleavedPacking::new(at, there.row, terms, [whole, panel, panel * k], to, steps)
            });
        } else {
            ahead.panels = StridedPrefetch::panels(there, columns, terms).spread_over(steps);
        }
    }

    /// Whether panels are packed during earlier products: only f32, only tiles that interleave packing, and only if A's
    /// terms are contiguous.
    fn packs_ahead(&self) -> bool {
        let TaskConfig { layout_a: left, in_place, .. } = self.config;
        let neighbours = match left {
            None => self.product.a_column == 1,
            Some(left) => !matches!(left, LayoutA::Columns),
        };
        let packs = T::IS_F32 && packs(self.table.exact);
        packs && neighbours && self.product.b_column == 1 && !self.single_group && !in_place
    }

    /// Whether the next group's rows are prefetched. Wide tiles prefetch only rows that will be copied, since the copy
    /// would wait.
    pub(super) fn prefetches_rows(&self) -> bool {
        !self.config.tiles.wide() || matches!(self.config.layout_a, Some(LayoutA::Rows))
    }
}
