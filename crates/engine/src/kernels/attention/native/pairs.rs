//! Factors of products by tiles: rows of f32 rounded to pairs of bf16 on their way, with zeros up to whole registers.
//!
//! Neighbours of a row pair up where a product sums along it, and two rows where it sums across them. What a product
//! reads by columns is turned besides, a square of pairs at a time, of which there are half as many as of f32.

use crate::simd::{Isa, Lanes};

/// Terms in a row of a tile's factor.
pub const TERMS: usize = 32;

/// Rows of [·, dim]: where each begins, and what they are multiplied by.
#[derive(Clone, Copy)]
pub struct Source<'a, F: Fn(usize) -> usize> {
    pub from: &'a [f32],
    pub at: F,
    pub rows: usize,
    pub dim: usize,
    pub scale: f32,
}

impl<F: Fn(usize) -> usize> Source<'_, F> {
    /// Where a row begins; null past the last.
    #[inline(always)]
    fn row(&self, row: usize) -> *const f32 {
        // Looked at once a row, not for each vector.
        if row < self.rows { self.from[(self.at)(row)..][..self.dim].as_ptr() } else { std::ptr::null() }
    }

    /// A vector of a row from `d` on; zeros where there is nothing, unless it is known to be there (`WHOLE`).
    ///
    /// # Safety
    /// As `Lanes`, and the row is one of these.
    #[inline(always)]
    unsafe fn vector<S: Isa, const WHOLE: bool>(&self, row: *const f32, d: usize) -> S::V {
        // SAFETY: the caller's; what is loaded is within the row.
        unsafe {
            if !WHOLE && (row.is_null() || d >= self.dim) {
                return S::zero();
            }
            let v = match self.dim - d {
                rest if !WHOLE && rest < S::WIDTH => S::V::load_first(row.add(d), rest),
                _ => S::V::load(row.add(d)),
            };
            v.mul(S::V::splat(self.scale))
        }
    }

    /// The pairs of a row that begin at d.
    ///
    /// # Safety
    /// As `vector`.
    #[inline(always)]
    unsafe fn along<S: Isa, const WHOLE: bool>(&self, row: *const f32, d: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            S::pairs::<true>(self.vector::<S, WHOLE>(row, d), self.vector::<S, WHOLE>(row, d + S::WIDTH))
        }
    }
}

/// to[row][pair of d], `stride` elements apart: rows as they are, d up to a multiple of `TERMS`.
///
/// # Safety
/// The processor has S's instructions.
#[inline(always)]
pub unsafe fn along<S: Isa>(x: Source<'_, impl Fn(usize) -> usize>, stride: usize, to: &mut [f32]) {
    let pairs = x.dim.next_multiple_of(TERMS) / 2;
    for row in 0..x.rows {
        let to = to[row * stride..][..pairs].as_mut_ptr();
        let row = x.row(row);
        for d in (0..x.dim).step_by(TERMS) {
            // SAFETY: the caller's; rows are as long as that.
            unsafe {
                let v = match d + TERMS <= x.dim {
                    true => x.along::<S, true>(row, d),
                    false => x.along::<S, false>(row, d),
                };
                v.store(to.add(d / 2));
            }
        }
    }
}

/// to[pair of rows][d], `stride` elements apart: rows up to a multiple of `TERMS`, d to one of 16.
///
/// # Safety
/// As `along`.
#[inline(always)]
pub unsafe fn across<S: Isa>(x: Source<'_, impl Fn(usize) -> usize>, stride: usize, to: &mut [f32]) {
    for pair in 0..x.rows.next_multiple_of(TERMS) / 2 {
        let to = to[pair * stride..][..x.dim.next_multiple_of(S::WIDTH)].as_mut_ptr();
        let rows = [x.row(2 * pair), x.row(2 * pair + 1)];
        for d in (0..x.dim).step_by(S::WIDTH) {
            // SAFETY: the caller's; the row is as long as that.
            unsafe {
                let v = S::pairs::<false>(x.vector::<S, false>(rows[0], d), x.vector::<S, false>(rows[1], d));
                v.store(to.add(d));
            }
        }
    }
}

/// As `along`, turned: to[pair of d][row], rows up to a multiple of 16.
///
/// # Safety
/// As `along`.
#[inline(always)]
pub unsafe fn along_turned<S: Isa>(x: Source<'_, impl Fn(usize) -> usize>, stride: usize, to: &mut [f32]) {
    let pairs = x.dim.next_multiple_of(TERMS) / 2;
    for first in (0..x.rows).step_by(S::WIDTH) {
        let mut rows = [std::ptr::null(); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = x.row(first + i);
        }
        for pair in (0..pairs).step_by(S::WIDTH) {
            let d = 2 * pair;
            // SAFETY: the caller's; parts have a vector's length.
            unsafe {
                let mut square = [S::zero(); 16];
                if first + S::WIDTH <= x.rows && d + TERMS <= x.dim {
                    for (v, row) in square.iter_mut().zip(rows) {
                        *v = x.along::<S, true>(row, d);
                    }
                } else {
                    for (v, row) in square.iter_mut().zip(rows) {
                        *v = x.along::<S, false>(row, d);
                    }
                }
                S::V::transpose(&mut square);
                store::<S>(&square, stride, &mut to[pair * stride + first..]);
            }
        }
    }
}

/// As `across`, turned: to[d][pair of rows], d up to a multiple of 16. Whether all of it is finite as pairs, which
/// may be denied where something is 2¹²⁷ or more.
///
/// # Safety
/// As `along`.
#[inline(always)]
pub unsafe fn across_turned<S: Isa>(
    x: Source<'_, impl Fn(usize) -> usize>,
    stride: usize,
    to: &mut [f32],
) -> bool {
    // SAFETY: the caller's; parts have a vector's length.
    unsafe {
        let (zero, two) = (S::zero(), S::V::splat(2.0));
        // Zeros, or NaN: of infinity, too, which what rounds to it is when doubled.
        let mut finite = [zero; 2];
        for first in (0..x.rows.next_multiple_of(TERMS) / 2).step_by(S::WIDTH) {
            let mut rows = [[std::ptr::null(); 2]; 16];
            for (i, pair) in rows.iter_mut().enumerate() {
                *pair = [x.row(2 * (first + i)), x.row(2 * (first + i) + 1)];
            }
            for d in (0..x.dim).step_by(S::WIDTH) {
                let mut square = [zero; 16];
                if 2 * (first + S::WIDTH) <= x.rows && d + S::WIDTH <= x.dim {
                    for (v, [even, odd]) in square.iter_mut().zip(rows) {
                        let (even, odd) = (x.vector::<S, true>(even, d), x.vector::<S, true>(odd, d));
                        finite[0] = even.mul(two).fma(zero, finite[0]);
                        finite[1] = odd.mul(two).fma(zero, finite[1]);
                        *v = S::pairs::<false>(even, odd);
                    }
                } else {
                    for (v, [even, odd]) in square.iter_mut().zip(rows) {
                        let (even, odd) = (x.vector::<S, false>(even, d), x.vector::<S, false>(odd, d));
                        finite[0] = even.mul(two).fma(zero, finite[0]);
                        finite[1] = odd.mul(two).fma(zero, finite[1]);
                        *v = S::pairs::<false>(even, odd);
                    }
                }
                S::V::transpose(&mut square);
                store::<S>(&square, stride, &mut to[d * stride + first..]);
            }
        }
        finite[0].add(finite[1]).sum() == 0.0
    }
}

/// A square's rows, `stride` elements apart.
///
/// # Safety
/// As `along`.
#[inline(always)]
unsafe fn store<S: Isa>(square: &[S::V; 16], stride: usize, to: &mut [f32]) {
    let to = to[..15 * stride + S::WIDTH].as_mut_ptr();
    for (i, v) in square.iter().enumerate() {
        // SAFETY: the caller's; the rows are there.
        unsafe { v.store(to.add(i * stride)) };
    }
}
