//! Packs a block of B into panels: for each group of columns its rows, contiguous, widened to f32 and padded with
//! zeros.

use crate::gemm::arguments::{Element, Source};
use crate::simd::Lanes;

/// Packs `k` rows of `width` columns into a panel; `width` is at most `panel`.
///
/// # Safety
/// The processor has L's instructions; `b` covers the block and `to` covers `k * panel` elements.
#[inline(always)]
pub unsafe fn pack<L: Lanes, T: Element>(
    b: Source<*const T>,
    k: usize,
    width: usize,
    panel: usize,
    to: *mut f32,
) {
    let Source { at: b, row, column } = b;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = width / L::LANES * L::LANES;
        if column == 1 {
            for t in 0..k {
                let (from, to) = (b.add(t * row), to.add(t * panel));
                for j in (0..whole).step_by(L::LANES) {
                    T::load::<L>(from.add(j)).store(to.add(j));
                }
                for j in whole..panel {
                    *to.add(j) = if j < width { (*from.add(j)).widen() } else { 0.0 };
                }
            }
            return;
        }
        let squares = if row == 1 { k / L::LANES * L::LANES } else { 0 };
        for j in (0..whole).step_by(L::LANES) {
            for t in (0..squares).step_by(L::LANES) {
                let mut square = [L::splat(0.0); 16];
                for (i, v) in square.iter_mut().enumerate().take(L::LANES) {
                    *v = T::load(b.add((j + i) * column + t));
                }
                L::transpose(&mut square);
                for (i, v) in square.iter().enumerate().take(L::LANES) {
                    v.store(to.add((t + i) * panel + j));
                }
            }
        }
        // The remainder of the squares: the last rows, the last columns and the padding.
        for j in 0..panel {
            let from = if j < whole { squares } else { 0 };
            for t in from..k {
                *to.add(t * panel + j) = if j < width { (*b.add(t * row + j * column)).widen() } else { 0.0 };
            }
        }
    }
}
