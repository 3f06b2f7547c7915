//! Few rows against all of B, as in decoding: B is read once, from its first byte to its last.

use super::microkernel::Left;
use super::pack::Element;
use super::prefetch::{LINE_BYTES, prefetch};
use crate::simd::Lanes;

/// Most rows that are taken this way.
pub const FEW: usize = 8;
/// Bytes ahead that a weight is asked for. The processor's own prefetching stops at each page's end,
/// and what it has fetched by then covers no walk through the page tables.
const AHEAD: usize = 6144;

/// Chains of sums of one row, of which each waits for none.
pub const ONE: usize = 4;

/// Columns that are summed before their epilogue.
pub const COLUMNS: usize = 64;

/// Rows of A by rows of a weight that lie along k.
#[derive(Clone, Copy)]
pub struct DotProducts<P> {
    /// Terms, which are neighbours.
    pub k: usize,
    pub a: Left,
    pub w: P,
    /// Elements from one row of the weight to the next.
    pub step: usize,
    /// Rows of the weight, at most `COLUMNS`.
    pub columns: usize,
}

/// By row of A, then of the weight.
pub type Sums = [[f32; COLUMNS]; FEW];

/// sums[i][j] = a[i] · w[j]. `CHAINS` sums are kept a row, of every `CHAINS`-th vector, so that none waits for the one
/// before.
///
/// # Safety
/// The processor has L's instructions, and the pointers reach over `ROWS` rows and as far as is said.
#[inline(always)]
pub unsafe fn dots<L: Lanes, T: Element, const ROWS: usize, const CHAINS: usize>(
    d: DotProducts<*const T>,
    sums: &mut Sums,
) {
    let DotProducts { k, a, w, step, columns } = d;
    // SAFETY: the caller's.
    unsafe {
        for (j, at) in (0..columns).map(|j| j * step).enumerate() {
            let w = w.add(at);
            let mut sum = [[L::splat(0.0); CHAINS]; ROWS];
            let whole = k / (CHAINS * L::LANES) * (CHAINS * L::LANES);
            chains(whole, a, w, &mut sum, |w| {
                for byte in (0..CHAINS * L::LANES * size_of::<T>()).step_by(LINE_BYTES) {
                    prefetch(w.cast::<u8>().wrapping_add(AHEAD + byte));
                }
            });
            for (i, chains) in sum.iter().enumerate() {
                sums[i][j] = ended(chains, k - whole, a.at.add(i * a.row + whole), w.add(whole));
            }
        }
    }
}

/// Adds the products of `k` terms to the chains of each row, in turn: whole steps of all chains. `ahead` is called with
/// each step's first element.
///
/// # Safety
/// As `dots`.
#[inline(always)]
pub unsafe fn chains<L: Lanes, T: Element, const ROWS: usize, const CHAINS: usize>(
    k: usize,
    a: Left,
    w: *const T,
    sums: &mut [[L; CHAINS]; ROWS],
    ahead: impl Fn(*const T),
) {
    // SAFETY: the caller's.
    unsafe {
        for t in (0..k).step_by(CHAINS * L::LANES) {
            ahead(w.add(t));
            for c in 0..CHAINS {
                let t = t + c * L::LANES;
                let right = T::load::<L>(w.add(t));
                for (i, chains) in sums.iter_mut().enumerate() {
                    chains[c] = L::load(a.at.add(i * a.row + t)).fma(right, chains[c]);
                }
            }
        }
    }
}

/// The sum of a row's chains, and of the `k` terms that are left over.
///
/// # Safety
/// As `dots`.
#[inline(always)]
pub unsafe fn ended<L: Lanes, T: Element, const CHAINS: usize>(
    chains: &[L; CHAINS],
    k: usize,
    a: *const f32,
    w: *const T,
) -> f32 {
    // SAFETY: the caller's.
    unsafe { more(all(chains), k, a, w) }
}

/// The sum of a row's chains.
///
/// # Safety
/// As `Lanes`.
#[inline(always)]
pub unsafe fn all<L: Lanes, const CHAINS: usize>(chains: &[L; CHAINS]) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let mut all = chains[0];
        for chain in &chains[1..] {
            all = all.add(*chain);
        }
        all.sum()
    }
}

/// A sum, and the products of `k` terms more.
///
/// # Safety
/// As `dots`.
#[inline(always)]
pub unsafe fn more<T: Element>(mut sum: f32, k: usize, a: *const f32, w: *const T) -> f32 {
    for t in 0..k {
        // SAFETY: the caller's.
        unsafe { sum += *a.add(t) * (*w.add(t)).widen() };
    }
    sum
}

/// Some columns of B, whose rows lie along them, and what A's rows sum over them.
pub struct Strip<P> {
    /// Rows of A.
    pub rows: usize,
    /// Terms: rows of B.
    pub k: usize,
    pub a: Left,
    pub b: P,
    pub b_row: usize,
    /// Columns of B.
    pub width: usize,
    /// [rows, width]
    pub sums: *mut f32,
}

/// sums[i, j] += Σ a[i, t] · b[t, j], four rows of B at a time; the sums stay in L1.
///
/// # Safety
/// The processor has L's instructions and the pointers reach as far as the strip says.
#[inline(always)]
pub unsafe fn strip<L: Lanes, T: Element>(s: Strip<*const T>) {
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
unsafe fn strip_rows<L: Lanes, T: Element, const TERMS: usize>(s: &Strip<*const T>, t: usize) {
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
