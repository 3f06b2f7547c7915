//! Few rows against all of B, as in decoding: B is read once, from its first byte to its last.

use super::microkernel::Left;
use super::pack::Element;
use super::prefetch::{LINE, prefetch};
use crate::simd::Lanes;

/// Most rows that are taken this way.
pub const FEW: usize = 8;
/// Bytes ahead that a weight is asked for. The processor's own prefetching stops at each page's end,
/// and what it has fetched by then covers no walk through the page tables.
const AHEAD: usize = 6144;

/// Columns that are summed before they are settled.
pub const COLUMNS: usize = 64;

/// sums[i][j] = a[i] · w[j] over `k` neighbours: rows of a weight that lie along k, `step` elements apart.
/// `CHAINS` sums are kept a row, of every `CHAINS`-th vector, so that none waits for the one before.
///
/// # Safety
/// The processor has L's instructions, the pointers reach over `ROWS` rows, `columns` rows of the weight
/// and `k` terms, and `columns` are at most `COLUMNS`.
#[inline(always)]
pub unsafe fn dots<L: Lanes, T: Element, const ROWS: usize, const CHAINS: usize>(
    k: usize,
    a: Left,
    w: *const T,
    step: usize,
    columns: usize,
    sums: &mut [[f32; COLUMNS]; FEW],
) {
    // SAFETY: the caller's.
    unsafe {
        for (j, at) in (0..columns).map(|j| j * step).enumerate() {
            let w = w.add(at);
            let mut chains = [[L::splat(0.0); CHAINS]; ROWS];
            let step = CHAINS * L::LANES;
            let whole = k / step * step;
            for t in (0..whole).step_by(step) {
                for byte in (0..step * size_of::<T>()).step_by(LINE) {
                    prefetch(w.wrapping_add(t).cast::<u8>().wrapping_add(AHEAD + byte));
                }
                for c in 0..CHAINS {
                    let t = t + c * L::LANES;
                    let right = T::load::<L>(w.add(t));
                    for (i, chains) in chains.iter_mut().enumerate() {
                        chains[c] = L::load(a.at.add(i * a.row + t)).fma(right, chains[c]);
                    }
                }
            }
            for (i, chains) in chains.iter().enumerate() {
                let mut all = chains[0];
                for chain in &chains[1..] {
                    all = all.add(*chain);
                }
                let mut sum = all.sum();
                for t in whole..k {
                    sum += *a.at.add(i * a.row + t) * (*w.add(t)).widen();
                }
                sums[i][j] = sum;
            }
        }
    }
}

/// Some columns of B, whose rows lie along them, and what A's rows sum over them.
pub struct Strip<T> {
    /// Rows of A.
    pub rows: usize,
    /// Terms: rows of B.
    pub k: usize,
    pub a: Left,
    pub b: *const T,
    pub b_row: usize,
    /// Columns of B.
    pub width: usize,
    /// [rows, width]
    pub sums: *mut f32,
}

/// sums[i, j] += Σ a[i, t] · b[t, j], four rows of B at a time; the sums stay in the first cache.
///
/// # Safety
/// The processor has L's instructions and the pointers reach as far as the strip says.
#[inline(always)]
pub unsafe fn strip<L: Lanes, T: Element>(s: Strip<T>) {
    // SAFETY: the caller's.
    unsafe {
        let whole = s.k / 4 * 4;
        for t in (0..whole).step_by(4) {
            strip_rows::<L, T, 4>(&s, t);
        }
        for t in whole..s.k {
            strip_rows::<L, T, 1>(&s, t);
        }
    }
}

#[inline(always)]
unsafe fn strip_rows<L: Lanes, T: Element, const TERMS: usize>(s: &Strip<T>, t: usize) {
    let &Strip { rows, a, b, b_row, width, sums, .. } = s;
    // SAFETY: the caller's.
    unsafe {
        let b = b.add(t * b_row);
        let whole = width / L::LANES * L::LANES;
        for i in 0..rows {
            let sums = sums.add(i * width);
            let a: [f32; TERMS] = std::array::from_fn(|u| *a.at.add(i * a.row + (t + u) * a.k));
            let lefts: [L; TERMS] = std::array::from_fn(|u| L::splat(a[u]));
            for j in (0..whole).step_by(L::LANES) {
                let mut sum = L::load(sums.add(j));
                for (u, left) in lefts.iter().enumerate() {
                    sum = left.fma(T::load(b.add(u * b_row + j)), sum);
                }
                sum.store(sums.add(j));
            }
            for j in whole..width {
                for (u, left) in a.iter().enumerate() {
                    *sums.add(j) += left * (*b.add(u * b_row + j)).widen();
                }
            }
        }
    }
}
