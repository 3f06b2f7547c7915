//! One tile of C in registers: rows × vectors of accumulators over a whole part of K.

use super::prefetch::{self, Prefetch};
use crate::simd::{Isa, Lanes};

/// Elements of k between two askings for what comes next.
pub const STRIDE: usize = 16;

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

/// A tile of C: what it is the sum of, over a part of K, and what becomes of that.
#[derive(Clone, Copy)]
pub struct TileProduct<'a> {
    pub rows: usize,
    /// Elements of the part, which are pairs of terms where factors are packed so.
    pub k: usize,
    pub a: Left,
    pub b: Right,
    /// Columns.
    pub width: usize,
    pub settle: Settle,
    pub more: Option<&'a More>,
}

/// Sums a tile of `ROWS` rows, and asks for what comes `next` meanwhile.
///
/// # Safety
/// The processor has S's instructions; the operands reach over the tile's rows, terms and columns (`VECTORS` whole
/// vectors unless `MASKED`).
#[inline(always)]
pub unsafe fn tile<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    t: &TileProduct,
    next: &mut Prefetch,
) {
    let &TileProduct { k, a, b, width, .. } = t;
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::zero(); VECTORS]; ROWS];
        let (mut a_at, mut b_at) = (a.at, b.at);
        prefetch_sums::<S, ROWS, VECTORS>(&t.settle);
        for from in (0..k).step_by(STRIDE) {
            next.fetch();
            for _ in 0..STRIDE.min(k - from) {
                let right = columns::<S, VECTORS, MASKED>(b_at, width);
                add::<S, ROWS, VECTORS, false>(right, a_at, a.row, &mut sums);
                a_at = a_at.add(a.k);
                b_at = b_at.add(b.k);
            }
        }
        settle::<S, ROWS, VECTORS, MASKED>(sums, t);
    }
}

/// Asks for where the sums will be written.
#[inline(always)]
pub fn prefetch_sums<S: Isa, const ROWS: usize, const VECTORS: usize>(s: &Settle) {
    for i in 0..ROWS {
        for j in 0..VECTORS {
            prefetch::to_write(s.c.wrapping_add(i * s.row + j * S::WIDTH).cast());
        }
    }
}

/// `width` neighbours, with zeros after the last where `MASKED`.
#[inline(always)]
unsafe fn columns<S: Isa, const VECTORS: usize, const MASKED: bool>(
    at: *const f32,
    width: usize,
) -> [S::V; VECTORS] {
    // SAFETY: the caller's; a last vector that is masked ends with `width`.
    unsafe {
        let mut row = [S::zero(); VECTORS];
        for (j, v) in row.iter_mut().enumerate() {
            let at = at.add(j * S::WIDTH);
            *v = match MASKED && j + 1 == VECTORS {
                true => S::V::load_first(at, width - j * S::WIDTH),
                false => S::V::load(at),
            };
        }
        row
    }
}

/// What becomes of a tile's sums.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub unsafe fn settle<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    mut sums: [[S::V; VECTORS]; ROWS],
    t: &TileProduct,
) {
    let &TileProduct { width, settle: s, more, .. } = t;
    // SAFETY: the caller's.
    unsafe {
        let alpha = S::V::splat(s.alpha);
        let bias = (!s.bias.is_null()).then(|| columns::<S, VECTORS, MASKED>(s.bias, width));
        for (i, sums) in sums.iter_mut().enumerate() {
            let before = s.accumulate.then(|| columns::<S, VECTORS, MASKED>(s.c.add(i * s.row), width));
            for (j, v) in sums.iter_mut().enumerate() {
                *v = v.mul(alpha);
                if let Some(bias) = bias {
                    *v = v.add(bias[j]);
                }
                if let Some(before) = before {
                    *v = v.add(before[j]);
                }
            }
        }
        if let Some(m) = more {
            let mut added = [[S::zero(); VECTORS]; ROWS];
            let (mut a_at, mut b_at) = (m.a.at, m.b.at);
            for _ in 0..m.k {
                let right = columns::<S, VECTORS, MASKED>(b_at, width);
                add::<S, ROWS, VECTORS, true>(right, a_at, m.a.row, &mut added);
                a_at = a_at.add(m.a.k);
                b_at = b_at.add(m.b.k);
            }
            let alpha = S::V::splat(m.alpha);
            for (sums, added) in sums.iter_mut().zip(added) {
                for (v, more) in sums.iter_mut().zip(added) {
                    *v = more.mul(alpha).add(*v);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, v) in sums.iter().enumerate() {
                let c = s.c.add(i * s.row + j * S::WIDTH);
                match MASKED && j + 1 == VECTORS {
                    true => v.store_first(c, width - j * S::WIDTH),
                    false => v.store(c),
                }
            }
        }
    }
}

/// Adds an element of each row of A by a row of B to the sums; an f32, or what S's products take.
#[inline(always)]
unsafe fn add<S: Isa, const ROWS: usize, const VECTORS: usize, const EXACT: bool>(
    right: [S::V; VECTORS],
    a: *const f32,
    a_row: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let left = S::V::splat(*a.add(i * a_row));
            for (sum, v) in sums.iter_mut().zip(right) {
                *sum = if EXACT { left.fma(v, *sum) } else { S::add(left, v, *sum) };
            }
        }
    }
}
