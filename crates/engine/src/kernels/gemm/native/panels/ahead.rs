//! What is packed or asked for while a run of panels is multiplied.

use super::{Kit, Part, Task};
use crate::kernels::gemm::native::lay::Lay;
use crate::kernels::gemm::native::loops::Stored;
use crate::kernels::gemm::native::microkernel::packs;
use crate::kernels::gemm::native::pack::At;
use crate::kernels::gemm::native::packing::Packing;
use crate::kernels::gemm::native::prefetch::{Prefetch, Stretches};

/// Columns of a B that lies row-major that are asked for, or packed, together. On two cores of a Xeon (Granite Rapids) a step
/// of SmolLM2 by AVX2 took as long with 32, and 1.2% more with one panel's, or with 128 before runs were held to half of a
/// task's panels; asked for and not packed while others are multiplied, another 1.5%. In bf16 by AMX, asked for alone, it
/// took 2.3% more with one panel's. By AVX-512 a layer of 4096 × 4096 with 512 rows took 1 to 2% more than with all panels at
/// once.
const RUN: usize = 64;

impl<T: Stored> Task<'_, T> {
    /// Panels of a run, which are asked for, or packed, together: of a B that lies row-major as many as have their columns
    /// in a few lines, and at most half of the task's.
    pub(super) fn run_length(&self) -> usize {
        let panels = self.block.columns.div_ceil(self.panel());
        if self.product.b_row == 1 { 1 } else { (RUN / self.panel()).clamp(1, panels.div_ceil(2)) }
    }

    /// Has a later run packed or asked for while that of panel `i` is multiplied, which takes so many `steps`. In the
    /// `first` group of tiles it is the next run, and at the last run of the `last` group the next part's first.
    ///
    /// # Safety
    /// As `take_part`; what was packed ahead before has been finished, and all groups are done with the panels before
    /// `i` if the group is the `last`.
    pub(super) unsafe fn look_ahead(
        &self,
        part: &Part,
        i: usize,
        [first, last]: [bool; 2],
        steps: usize,
        ahead: &mut Prefetch,
    ) {
        ahead.panels = Stretches::nothing();
        let (next, panels) = (i + self.run_length(), self.block.columns.div_ceil(self.panel()));
        let after = part.from + part.terms;
        let (from, first_panel) = match next < panels {
            _ if self.row_by_row() => return,
            true if first => (part.from, next),
            false if last && after < self.product.k => (after, 0),
            _ => return,
        };
        let (panel, terms) = (self.panel(), self.terms(from));
        let j = first_panel * panel;
        let (there, columns) =
            (self.source(from, j).0, (self.run_length() * panel).min(self.block.columns - j));
        let whole = columns / panel;
        // The next part's first run lies where this part's does, which is still multiplied if it is the only one.
        if self.packs_ahead() && whole > 0 && first_panel != i {
            let (at, k) = (there.at.address().cast(), self.kit.elements(terms));
            let to = self.panel_at(self.space.panels, j, k);
            // SAFETY: the caller's; the run lies behind those that are multiplied or before them, where the part before is done.
            ahead.packing =
                Some(unsafe { Packing::new(at, there.row, terms, [whole, panel, panel * k], to, steps) });
        } else {
            ahead.panels = Stretches::panels(there, columns, terms).over(steps);
        }
    }

    /// Whether panels are packed while those before are multiplied: of f32, by tiles whose loops do so, which they do where
    /// A's terms are neighbours.
    fn packs_ahead(&self) -> bool {
        let Kit { left, in_place, .. } = self.kit;
        let neighbours = match left {
            None => self.product.a_column == 1,
            Some(left) => !matches!(left, Lay::Columns),
        };
        let packs = T::IS_F32 && packs(self.loops.exact);
        packs && neighbours && self.product.b_column == 1 && !self.once && !in_place
    }

    /// The next group's rows are asked for while one is multiplied: beside wide tiles only those that are copied, which a
    /// copy would wait for.
    pub(super) fn rows_ahead(&self) -> bool {
        !self.kit.tiles.wide() || matches!(self.kit.left, Some(Lay::Rows))
    }
}
