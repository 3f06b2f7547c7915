//! Products of few rows, as in decoding: B is read once, sequentially.

use crate::gemm::arguments::{DotProducts, Element, Left, Strip, Sums};
use crate::gemm::cache_line::{LINE_BYTES, prefetch};
use crate::simd::Lanes;

/// Prefetch distance, in bytes. The hardware prefetcher stops at page ends and is not far enough ahead to hide the page
/// walk.
const AHEAD: usize = 6144;

/// Independent accumulator chains for one row.
pub const ONE_ROW_CHAINS: usize = 4;

/// sums[i][j] = a[i] · w[j]. Each row has `CHAINS` accumulators, one for every `CHAINS`-th vector, which hide the
/// latency of multiply-adds.
///
/// # Safety
/// The processor has L's instructions, and the pointers cover `ROWS` rows of A and the given rows of the weight.
#[inline(always)]
pub unsafe fn compute_dots<L: Lanes, T: Element, const ROWS: usize, const CHAINS: usize>(
    d: DotProducts<*const T>,
    sums: &mut Sums,
) {
    let DotProducts { k, a, w, step, columns } = d;
    // SAFETY: guaranteed by the caller.
    unsafe {
        for (j, at) in (0..columns).map(|j| j * step).enumerate() {
            let w = w.add(at);
            let mut sum = [[L::splat(0.0); CHAINS]; ROWS];
            let whole = k / (CHAINS * L::LANES) * (CHAINS * L::LANES);
            add_to_chains(whole, a, w, &mut sum, |w| {
                for byte in (0..CHAINS * L::LANES * size_of::<T>()).step_by(LINE_BYTES) {
                    prefetch(w.cast::<u8>().wrapping_add(AHEAD + byte));
                }
            });
            for (i, chains) in sum.iter().enumerate() {
                sums[i][j] = finish_row(chains, k - whole, a.at.add(i * a.row + whole), w.add(whole));
            }
        }
    }
}

/// Adds the products of `k` terms to each row's chains in turn; `k` is a multiple of `CHAINS` vectors. Calls `ahead`
/// with the first element of each step.
///
/// # Safety
/// As for `compute_dots`.
#[inline(always)]
pub unsafe fn add_to_chains<L: Lanes, T: Element, const ROWS: usize, const CHAINS: usize>(
    k: usize,
    a: Left,
    w: *const T,
    sums: &mut [[L; CHAINS]; ROWS],
    ahead: impl Fn(*const T),
) {
    // SAFETY: guaranteed by the caller.
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

/// The sum of a row's chains and of the `k` remaining terms.
///
/// # Safety
/// As for `compute_dots`.
#[inline(always)]
pub unsafe fn finish_row<L: Lanes, T: Element, const CHAINS: usize>(
    chains: &[L; CHAINS],
    k: usize,
    a: *const f32,
    w: *const T,
) -> f32 {
    // SAFETY: guaranteed by the caller.
    unsafe { add_tail(reduce_chains(chains), k, a, w) }
}

/// The sum of a row's chains.
///
/// # Safety
/// As for `Lanes`.
#[inline(always)]
pub unsafe fn reduce_chains<L: Lanes, const CHAINS: usize>(chains: &[L; CHAINS]) -> f32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut all = chains[0];
        for chain in &chains[1..] {
            all = all.add(*chain);
        }
        all.sum()
    }
}

/// `sum` plus the products of `k` terms.
///
/// # Safety
/// As for `compute_dots`.
#[inline(always)]
pub unsafe fn add_tail<T: Element>(mut sum: f32, k: usize, a: *const f32, w: *const T) -> f32 {
    for t in 0..k {
        // SAFETY: guaranteed by the caller.
        unsafe { sum += *a.add(t) * (*w.add(t)).widen() };
    }
    sum
}

/// sums[i, j] += Σ a[i, t] · b[t, j], four rows of B per step; the sums stay in L1.
///
/// # Safety
/// The processor has L's instructions, and the pointers cover the strip.
#[inline(always)]
pub unsafe fn multiply_strip<L: Lanes, T: Element>(s: Strip<*const T>) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = s.k / 4 * 4;
        for t in (0..whole).step_by(4) {
            add_strip_rows::<L, T, 4>(&s, t);
        }
        for t in whole..s.k {
            add_strip_rows::<L, T, 1>(&s, t);
        }
    }
}

#[inline(always)]
unsafe fn add_strip_rows<L: Lanes, T: Element, const TERMS: usize>(s: &Strip<*const T>, t: usize) {
    let &Strip { rows, a, b, b_row, width, sums, .. } = s;
    // SAFETY: guaranteed by the caller.
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
