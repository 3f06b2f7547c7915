//! One tile of C in registers: rows × vectors of accumulators over a whole part of K.

use super::ahead::{self, Ahead};
use crate::simd::Lanes;

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

/// A second sum of products of f32: what the first has settled to gets `alpha` times it more, before it is stored.
/// A tile of its own, which reads and writes C again, took 8 to 12% more of a product of K = 576 and R = 16 whose C
/// no cache holds.
#[derive(Clone, Copy)]
pub struct More {
    pub k: usize,
    pub a: Left,
    pub b: Right,
    pub alpha: f32,
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
    more: Option<&More>,
    next: &mut Ahead,
) {
    unsafe {
        let rest = width - (VECTORS - 1) * L::LANES;
        let load = |p: *const f32, j: usize| {
            let p = p.add(j * L::LANES);
            if MASKED && j + 1 == VECTORS { L::load_first(p, rest) } else { L::load(p) }
        };
        let row = |b: *const f32| {
            let mut row = [L::splat(0.0); VECTORS];
            for (j, v) in row.iter_mut().enumerate() {
                *v = load(b, j);
            }
            row
        };
        let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
        let (mut a_at, mut b_at) = (a.at, b.at);
        for i in 0..ROWS {
            for j in 0..VECTORS {
                ahead::to_write(s.c.wrapping_add(i * s.row + j * L::LANES).cast());
            }
        }
        for from in (0..k).step_by(STRIDE) {
            next.fetch();
            for _ in 0..STRIDE.min(k - from) {
                add::<L, S, ROWS, VECTORS>(row(b_at), a_at, a.row, &mut sums);
                a_at = a_at.add(a.k);
                b_at = b_at.add(b.k);
            }
        }
        let alpha = L::splat(s.alpha);
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, v) in sums.iter_mut().enumerate() {
                *v = v.mul(alpha);
                if !s.bias.is_null() {
                    *v = v.add(load(s.bias, j));
                }
                if s.accumulate {
                    *v = v.add(load(s.c.add(i * s.row), j));
                }
            }
        }
        if let Some(m) = more {
            let mut added = [[L::splat(0.0); VECTORS]; ROWS];
            let (mut a_at, mut b_at) = (m.a.at, m.b.at);
            for _ in 0..m.k {
                add::<L, Single, ROWS, VECTORS>(row(b_at), a_at, m.a.row, &mut added);
                a_at = a_at.add(m.a.k);
                b_at = b_at.add(m.b.k);
            }
            let alpha = L::splat(m.alpha);
            for (sums, added) in sums.iter_mut().zip(added) {
                for (v, more) in sums.iter_mut().zip(added) {
                    *v = more.mul(alpha).add(*v);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, v) in sums.iter().enumerate() {
                let c = s.c.add(i * s.row + j * L::LANES);
                if MASKED && j + 1 == VECTORS { v.store_first(c, rest) } else { v.store(c) }
            }
        }
    }
}

/// Adds an element of each row of A by a row of B to the sums.
#[inline(always)]
unsafe fn add<L: Lanes, S: Term<L>, const ROWS: usize, const VECTORS: usize>(
    right: [L; VECTORS],
    a: *const f32,
    a_row: usize,
    sums: &mut [[L; VECTORS]; ROWS],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        unsafe {
            let left = L::splat(*a.add(i * a_row));
            for (sum, v) in sums.iter_mut().zip(right) {
                *sum = S::add(left, v, *sum);
            }
        }
    }
}
