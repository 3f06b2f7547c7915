//! What is packed or asked for while a run of panels is multiplied.

use super::{Kit, Part, Task};
use crate::kernels::gemm::native::lay::Lay;
use crate::kernels::gemm::native::loops::Stored;
use crate::kernels::gemm::native::pack::At;
use crate::kernels::gemm::native::packing::Packing;
use crate::kernels::gemm::native::prefetch::{Prefetch, Stretches};

/// Columns of a B that lies row-major that are asked for, or packed, together. By AVX2 on two cores of a Xeon (Granite
/// Rapids), with 128 instead or with one panel's a step of SmolLM2 took 1.2% more, with 32 as long. Asked for and not packed while
/// others are multiplied it took another 1.5% more. By AVX-512, instead of all panels at once, a layer of 4096 × 4096
/// with 512 rows took 1 to 2% more.
const RUN: usize = 64;

impl<T: Stored> Task<'_, T> {
    /// Panels of a run, which are asked for, or packed, together: of a B that lies row-major as many as have their columns
    /// in a few lines, and at most half of the task's.
    pub(super) fn run_length(&self) -> usize {
        let panels = self.block.columns.div_ceil(self.panel());
        if self.product.b_row == 1 { 1 } else { (RUN / self.panel()).clamp(1, panels.div_ceil(2)) }
    }

    /// What is packed after the run of panel `i`: the term that its part begins with, and its first panel. In the `first`
    /// group of tiles it is the next run, and after the last run of the `last` group the next part's first.
    pub(super) fn next_run(&self, part: &Part, i: usize, first: bool, last: bool) -> Option<(usize, usize)> {
        let (next, panels) = (i + self.run_length(), self.block.columns.div_ceil(self.panel()));
        let after = part.from + part.terms;
        match next < panels {
            _ if self.row_by_row() => None,
            true => first.then_some((part.from, next)),
            false => (last && after < self.product.k).then_some((after, 0)),
        }
    }

    /// Has the `next` run packed or asked for while that of panel `i` is multiplied, which takes so many `steps`.
    ///
    /// # Safety
    /// As `take_part`; `next` is what `next_run` gave for `i`, what was packed ahead before has been finished, and all groups are
    /// done with the panels before `i` if it is the last one's.
    pub(super) unsafe fn look_ahead(
        &self,
        next: Option<(usize, usize)>,
        i: usize,
        steps: usize,
        ahead: &mut Prefetch,
    ) {
        ahead.panel = Stretches::nothing();
        let Some((from, first)) = next else { return };
        let (panel, terms) = (self.panel(), self.terms(from));
        let j = first * panel;
        let (there, columns) =
            (self.source(from, j).0, (self.run_length() * panel).min(self.block.columns - j));
        let whole = columns / panel;
        // The next part's first run lies where this part's does, which is still multiplied if it is the only one.
        if self.packs_ahead() && whole > 0 && first != i {
            let (at, k) = (there.at.address().cast(), self.kit.elements(terms));
            let to = self.panel_at(self.space.panels, j, k);
            // SAFETY: the caller's; the run lies behind those that are multiplied or before them, where the part before is done.
            ahead.packing =
                unsafe { Packing::new(at, there.row, terms, [whole, panel, panel * k], to, steps) };
        } else {
            ahead.panel = Stretches::panel(there, columns, terms).over(steps);
        }
    }

    /// Whether panels are packed while those before are multiplied: of f32, by tiles whose loops do so, which they do where
    /// A's terms are neighbours.
    fn packs_ahead(&self) -> bool {
        let Kit { tiles, left, in_place, .. } = self.kit;
        let neighbours = match left {
            None => self.product.a_column == 1,
            Some(left) => !matches!(left, Lay::Columns),
        };
        T::IS_F32 && tiles.packs && neighbours && self.product.b_column == 1 && !self.once && !in_place
    }

    /// The next group's rows are asked for while one is multiplied: beside wide tiles only those that are copied, which a
    /// copy would wait for.
    pub(super) fn rows_ahead(&self) -> bool {
        !self.kit.tiles.wide() || matches!(self.kit.left, Some(Lay::Rows))
    }
}
