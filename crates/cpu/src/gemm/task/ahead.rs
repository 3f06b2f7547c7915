//! Prefetching during the products of a run of panels.

use super::{KBlock, Task};
use crate::gemm::microkernel::prefetch::StridedPrefetch;
use crate::gemm::pack::a::LayoutA;
use crate::gemm::table::Storage;

/// Columns of a row-major B that are prefetched together: their elements of a row are in a few cache lines.
const RUN: usize = 64;

impl<T: Storage> Task<'_, T> {
    /// Panels per run, which are prefetched together. A row-major B has several, at most half of the task's panels.
    pub(super) fn panels_per_run(&self) -> usize {
        let panels = self.block.columns.div_ceil(self.panel());
        if self.product.b_row == 1 { 1 } else { (RUN / self.panel()).clamp(1, panels.div_ceil(2)) }
    }

    /// A later run of panels, to prefetch during the products of the run of panel `i`, which take `steps` steps. For
    /// the first group of tiles this is the next run; at the last run of the last group it is the first run of the next
    /// block of K.
    pub(super) fn find_run_ahead(
        &self,
        k_block: &KBlock,
        i: usize,
        [first, last]: [bool; 2],
        steps: usize,
    ) -> StridedPrefetch {
        let (next, panels) = (i + self.panels_per_run(), self.block.columns.div_ceil(self.panel()));
        let after = k_block.from + k_block.terms;
        let (from, first_panel) = match next < panels {
            _ if self.packs_row_by_row() => return StridedPrefetch::none(),
            true if first => (k_block.from, next),
            false if last && after < self.product.k => (after, 0),
            _ => return StridedPrefetch::none(),
        };
        let j = first_panel * self.panel();
        let columns = (self.panels_per_run() * self.panel()).min(self.block.columns - j);
        StridedPrefetch::for_panels(self.find_source(from, j).0, columns, self.count_terms(from))
            .distribute(steps)
    }

    /// Whether the next group's rows are prefetched. Wide tiles prefetch only rows that will be copied, since the copy
    /// would wait.
    pub(super) fn prefetches_rows(&self) -> bool {
        !self.config.tiles.is_wide() || matches!(self.config.layout_a, Some(LayoutA::Rows))
    }
}
