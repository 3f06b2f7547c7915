//! One tile of C in registers: rows × vectors of accumulators over a whole part of K.

use super::ahead::Ahead;
use crate::kernels::numeric::Lanes;

/// Elements of k between two askings for what comes next.
pub const STRIDE: usize = 16;

/// How an element of A and elements of B are added to a sum. Elements are 32 bits: an f32, or what a
/// `Term` makes of them.
pub trait Term<L: Lanes> {
    /// # Safety
    /// The processor has L's instructions, and the term's own.
    unsafe fn add(left: L, right: L, sum: L) -> L;
}

/// A product of two f32.
pub struct Single;

impl<L: Lanes> Term<L> for Single {
    #[inline(always)]
    unsafe fn add(left: L, right: L, sum: L) -> L {
        unsafe { left.fma(right, sum) }
    }
}

/// Where a factor's elements lie: the pointer to the tile's first, and the steps in elements.
#[derive(Clone, Copy)]
pub struct Left {
    pub at: *const f32,
    pub row: usize,
    pub k: usize,
}

/// B's columns are neighbours; `k` elements lie between its rows.
#[derive(Clone, Copy)]
pub struct Right {
    pub at: *const f32,
    pub k: usize,
}

/// What is done with the sums: c = (c) + alpha · sum + (bias).
#[derive(Clone, Copy)]
pub struct Settle {
    pub c: *mut f32,
    pub row: usize,
    pub alpha: f32,
    /// Null for none.
    pub bias: *const f32,
    pub accumulate: bool,
}

/// # Safety
/// The processor has L's instructions; the operands reach over `ROWS` rows, `k` terms, and `width`
/// columns (`VECTORS` whole vectors unless `MASKED`).
#[inline(always)]
pub unsafe fn tile<L: Lanes, S: Term<L>, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    k: usize,
    a: Left,
    b: Right,
    width: usize,
    s: Settle,
    ahead: &mut Ahead,
) {
    unsafe {
        let rest = width - (VECTORS - 1) * L::LANES;
        let load = |p: *const f32, j: usize| {
            let p = p.add(j * L::LANES);
            if MASKED && j + 1 == VECTORS { L::load_first(p, rest) } else { L::load(p) }
        };
        let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
        let (mut a_at, mut b_at) = (a.at, b.at);
        for from in (0..k).step_by(STRIDE) {
            ahead.fetch();
            for _ in 0..STRIDE.min(k - from) {
                let mut right = [L::splat(0.0); VECTORS];
                for (j, v) in right.iter_mut().enumerate() {
                    *v = load(b_at, j);
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = L::splat(*a_at.add(i * a.row));
                    for (sum, v) in sums.iter_mut().zip(right) {
                        *sum = S::add(left, v, *sum);
                    }
                }
                a_at = a_at.add(a.k);
                b_at = b_at.add(b.k);
            }
        }
        let alpha = L::splat(s.alpha);
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let mut v = sum.mul(alpha);
                if !s.bias.is_null() {
                    v = v.add(load(s.bias, j));
                }
                let row = s.c.add(i * s.row);
                if s.accumulate {
                    v = v.add(load(row, j));
                }
                let c = row.add(j * L::LANES);
                if MASKED && j + 1 == VECTORS { v.store_first(c, rest) } else { v.store(c) }
            }
        }
    }
}
