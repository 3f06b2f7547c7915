//! Packing for products with tiles: rows of f32 are rounded to pairs of bf16 and padded with zeros to whole registers.
//!
//! If a product sums along a row, neighbours in the row form pairs; if it sums across rows, two rows do. A factor that
//! is read by columns is also transposed, one square of pairs at a time, which has half as many elements as in f32.

use crate::simd::{Isa, Lanes};

/// Elements along k in one register row of a tile's factor.
pub const TERMS: usize = 32;

/// Source rows of [·, dim]: the offset of each and a factor for all.
#[derive(Clone, Copy)]
pub struct Source<'a, F: Fn(usize) -> usize> {
    pub from: &'a [f32],
    pub at: F,
    pub rows: usize,
    pub dim: usize,
    pub scale: f32,
}

impl<F: Fn(usize) -> usize> Source<'_, F> {
    /// A pointer to a row; null past the last.
    #[inline(always)]
    fn row(&self, row: usize) -> *const f32 {
        // Evaluated once per row, not for each vector.
        if row < self.rows { self.from[(self.at)(row)..][..self.dim].as_ptr() } else { std::ptr::null() }
    }

    /// Loads a vector of a row at `d`; zeros outside of the row. With `WHOLE` the vector is known to be inside.
    ///
    /// # Safety
    /// As for `Lanes`; the row is one of `row`'s results.
    #[inline(always)]
    unsafe fn load<S: Isa, const WHOLE: bool>(&self, row: *const f32, d: usize) -> S::V {
        // SAFETY: guaranteed by the caller; the load stays inside the row.
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

    /// Returns the pairs of a row that begin at d.
    ///
    /// # Safety
    /// As for `load`.
    #[inline(always)]
    unsafe fn load_pairs<S: Isa, const WHOLE: bool>(&self, row: *const f32, d: usize) -> S::V {
        // SAFETY: guaranteed by the caller.
        unsafe {
            S::make_pairs::<true>(self.load::<S, WHOLE>(row, d), self.load::<S, WHOLE>(row, d + S::WIDTH))
        }
    }
}

/// Packs to[row][pair of d] with a row stride of `stride` elements; pads d to a multiple of `TERMS`.
///
/// # Safety
/// The processor has S's instructions.
#[inline(always)]
pub unsafe fn pack_along<S: Isa>(x: Source<'_, impl Fn(usize) -> usize>, stride: usize, to: &mut [f32]) {
    let pairs = x.dim.next_multiple_of(TERMS) / 2;
    for row in 0..x.rows {
        let to = to[row * stride..][..pairs].as_mut_ptr();
        let row = x.row(row);
        for d in (0..x.dim).step_by(TERMS) {
            // SAFETY: guaranteed by the caller; rows have that length.
            unsafe {
                let v = match d + TERMS <= x.dim {
                    true => x.load_pairs::<S, true>(row, d),
                    false => x.load_pairs::<S, false>(row, d),
                };
                v.store(to.add(d / 2));
            }
        }
    }
}

/// Packs to[pair of rows][d] with a row stride of `stride` elements; pads rows to a multiple of `TERMS`, d to one of
/// 16.
///
/// # Safety
/// As for `pack_along`.
#[inline(always)]
pub unsafe fn pack_across<S: Isa>(x: Source<'_, impl Fn(usize) -> usize>, stride: usize, to: &mut [f32]) {
    for pair in 0..x.rows.next_multiple_of(TERMS) / 2 {
        let to = to[pair * stride..][..x.dim.next_multiple_of(S::WIDTH)].as_mut_ptr();
        let rows = [x.row(2 * pair), x.row(2 * pair + 1)];
        for d in (0..x.dim).step_by(S::WIDTH) {
            // SAFETY: guaranteed by the caller; the row has that length.
            unsafe {
                let v =
                    S::make_pairs::<false>(x.load::<S, false>(rows[0], d), x.load::<S, false>(rows[1], d));
                v.store(to.add(d));
            }
        }
    }
}

/// Like `pack_along`, but transposed: to[pair of d][row]; pads rows to a multiple of 16.
///
/// # Safety
/// As for `pack_along`.
#[inline(always)]
pub unsafe fn pack_along_transposed<S: Isa>(
    x: Source<'_, impl Fn(usize) -> usize>,
    stride: usize,
    to: &mut [f32],
) {
    let pairs = x.dim.next_multiple_of(TERMS) / 2;
    for first in (0..x.rows).step_by(S::WIDTH) {
        let mut rows = [std::ptr::null(); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = x.row(first + i);
        }
        for pair in (0..pairs).step_by(S::WIDTH) {
            let d = 2 * pair;
            // SAFETY: guaranteed by the caller; slices have a vector's length.
            unsafe {
                let mut square = [S::zero(); 16];
                if first + S::WIDTH <= x.rows && d + TERMS <= x.dim {
                    for (v, row) in square.iter_mut().zip(rows) {
                        *v = x.load_pairs::<S, true>(row, d);
                    }
                } else {
                    for (v, row) in square.iter_mut().zip(rows) {
                        *v = x.load_pairs::<S, false>(row, d);
                    }
                }
                S::V::transpose(&mut square);
                store::<S>(&square, stride, &mut to[pair * stride + first..]);
            }
        }
    }
}

/// Like `pack_across`, but transposed: to[d][pair of rows]; pads d to a multiple of 16. Returns whether all pairs are
/// finite; it may return false if a value is at least 2¹²⁷.
///
/// # Safety
/// As for `pack_along`.
#[inline(always)]
pub unsafe fn pack_across_transposed<S: Isa>(
    x: Source<'_, impl Fn(usize) -> usize>,
    stride: usize,
    to: &mut [f32],
) -> bool {
    // SAFETY: guaranteed by the caller; slices have a vector's length.
    unsafe {
        let (zero, two) = (S::zero(), S::V::splat(2.0));
        // 0, or NaN if a value is infinite when doubled, which includes values that round to infinity.
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
                        let (even, odd) = (x.load::<S, true>(even, d), x.load::<S, true>(odd, d));
                        finite[0] = even.mul(two).fma(zero, finite[0]);
                        finite[1] = odd.mul(two).fma(zero, finite[1]);
                        *v = S::make_pairs::<false>(even, odd);
                    }
                } else {
                    for (v, [even, odd]) in square.iter_mut().zip(rows) {
                        let (even, odd) = (x.load::<S, false>(even, d), x.load::<S, false>(odd, d));
                        finite[0] = even.mul(two).fma(zero, finite[0]);
                        finite[1] = odd.mul(two).fma(zero, finite[1]);
                        *v = S::make_pairs::<false>(even, odd);
                    }
                }
                S::V::transpose(&mut square);
                store::<S>(&square, stride, &mut to[d * stride + first..]);
            }
        }
        finite[0].add(finite[1]).sum() == 0.0
    }
}

/// Stores the rows of a square with a stride of `stride` elements.
///
/// # Safety
/// As for `pack_along`.
#[inline(always)]
unsafe fn store<S: Isa>(square: &[S::V; 16], stride: usize, to: &mut [f32]) {
    let to = to[..15 * stride + S::WIDTH].as_mut_ptr();
    for (i, v) in square.iter().enumerate() {
        // SAFETY: guaranteed by the caller; the slice includes the rows.
        unsafe { v.store(to.add(i * stride)) };
    }
}
