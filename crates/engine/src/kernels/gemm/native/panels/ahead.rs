//! What is packed or asked for while a run of panels is multiplied.

use super::{Kit, Part, Task};
use crate::kernels::gemm::native::lay::Lay;
use crate::kernels::gemm::native::loops::Stored;
use crate::kernels::gemm::native::pack::At;
use crate::kernels::gemm::native::packing::Packing;
use crate::kernels::gemm::native::prefetch::{Prefetch, Stretches};

/// Columns of a B that lies row-major that are asked for, or packed, together. By AVX2, two cores of a Xeon (Granite
/// Rapids), a step of SmolLM2 took 1.2% less than with those of one panel, and packing them while the run before is multiplied
/// another 1.5%; with 32 as much, with 128 nothing. A layer of 4096 × 4096, 512 rows, takes 4.5% less with both. By
/// AVX-512, instead of all panels at once, such a layer took 1 to 2% more.
const RUN: usize = 64;

impl<T: Stored> Task<'_, T> {
    /// Panels that are asked for, or packed, together: where B lies row-major those whose columns are in a few lines.
    pub(super) fn run(&self) -> usize {
        if self.product.b_row == 1 { 1 } else { (RUN / self.panel()).max(1) }
    }

    /// The run that is packed after the one of panel `i`, in the `first` group of tiles, or after it in the `last`: the term
    /// that its part begins with, and its first panel.
    pub(super) fn next_run(&self, part: &Part, i: usize, first: bool, last: bool) -> Option<(usize, usize)> {
        let (next, panels) = (i + self.run(), self.block.columns.div_ceil(self.panel()));
        let after = part.from + part.terms;
        match next < panels {
            _ if self.row_by_row() => None,
            true => first.then_some((part.from, next)),
            false => (last && after < self.product.k).then_some((after, 0)),
        }
    }

    /// While the run of panel `now` is multiplied, in so many `times`, the `next` one is packed or asked for.
    ///
    /// # Safety
    /// As `take_part`; `next` is what `next_run` gave for `now`.
    pub(super) unsafe fn look_ahead(
        &self,
        next: Option<(usize, usize)>,
        now: usize,
        times: usize,
        ahead: &mut Prefetch,
    ) {
        ahead.panel = Stretches::nothing();
        let Some((from, next)) = next else { return };
        let (panel, terms) = (self.panel(), self.terms(from));
        let j = next * panel;
        let (there, columns) = (self.source(from, j).0, (self.run() * panel).min(self.block.columns - j));
        // The next part's panels lie where this one's first do, which may still be multiplied.
        let whole = columns / panel;
        let free = next > now || whole <= now;
        if self.packs_ahead() && whole > 0 && free {
            let (at, k) = (there.at.address().cast(), self.kit.elements(terms));
            let to = self.panel_at(self.space.panels, j, k);
            // SAFETY: the caller's.
            ahead.packing =
                unsafe { Packing::new(at, there.row, terms, [whole, panel, panel * k], to, times) };
        } else {
            ahead.panel = Stretches::panel(there, columns, terms).over(times);
        }
    }

    /// Panels are packed while those before are multiplied.
    fn packs_ahead(&self) -> bool {
        let Kit { tiles, in_place, .. } = self.kit;
        T::IS_F32 && tiles.packs && self.product.b_column == 1 && !self.once && !in_place
    }

    /// The next group's rows are asked for while one is multiplied: beside wide tiles only those that are copied, which a
    /// copy would wait for.
    pub(super) fn rows_ahead(&self) -> bool {
        !self.kit.tiles.wide() || matches!(self.kit.left, Some(Lay::Rows))
    }
}
