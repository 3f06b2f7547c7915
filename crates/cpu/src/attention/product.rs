//! The product of small tiles, the building block of attention.
//!
//! C[m][n] (+)= Σₖ A[m·AM + k·AK] · B[k·BK + n]: elements of A are broadcast to the lanes, and B and C are contiguous
//! along n, so the product needs no packing. Also tried: arrays of f32 left to the compiler, which reach the peak for
//! some tile sizes and a hundredth of it for others; tiles of 12 × 2 vectors (111 GFLOP/s per core, compared with 116
//! of 117 for 6 × 4).

use crate::simd::{Isa, Lanes};

/// Vectors per row of a full tile, a power of two: six such rows use three quarters of the registers for sums.
const fn max_vectors<S: Isa>() -> usize {
    S::REGISTERS / 8
}

/// The operands of a product: pointers to A, B and C, the row stride of C, and whether to add to C.
#[derive(Clone, Copy)]
struct Operands {
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
}

impl Operands {
    #[inline(always)]
    unsafe fn at_row(self, row: usize, a_row: usize) -> Operands {
        // SAFETY: guaranteed by the caller.
        unsafe { Operands { a: self.a.add(row * a_row), c: self.c.add(row * self.c_row), ..self } }
    }
}

/// Computes the product above for m rows, n lanes (a multiple of 16) and k terms. With tiles, k is rounded up to a
/// multiple of 32 and A's rows to whole registers of 16; an A that is otherwise read by columns (AM = 1) is stored
/// transposed, with a row stride of `TRANSPOSED_ROW` elements.
///
/// # Safety
/// A, B and C must be valid for the sizes and strides.
#[inline(always)]
pub unsafe fn multiply<S: Isa, const AM: usize, const AK: usize, const BK: usize>(
    [m, n, k]: [usize; 3],
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if S::TILED {
        use super::TRANSPOSED_ROW;
        use super::tiles::{Rows, multiply};
        let a_row = if AK == 1 { AM } else { TRANSPOSED_ROW };
        // SAFETY: guaranteed by the caller, who has configured the registers.
        return unsafe { multiply([m, n, k], Rows(a, a_row), Rows(b, BK), Rows(c, c_row), add) };
    }
    let k = k.div_ceil(S::TERMS);
    let mut at = 0;
    while at < n {
        // 16 lanes are whole vectors in every instruction set, but a full tile only in some.
        let vectors = max_vectors::<S>().min((n - at) / S::WIDTH);
        // SAFETY: guaranteed by the caller.
        unsafe {
            let o = Operands { a, b: b.add(at), c: c.add(at), c_row, add };
            if vectors == 4 && max_vectors::<S>() == 4 {
                multiply_columns::<S, 4, AM, AK, BK>(m, k, o);
                at += 4 * S::WIDTH;
            } else if vectors >= 2 {
                multiply_columns::<S, 2, AM, AK, BK>(m, k, o);
                at += 2 * S::WIDTH;
            } else {
                multiply_columns::<S, 1, AM, AK, BK>(m, k, o);
                at += S::WIDTH;
            }
        }
    }
}

#[inline(always)]
unsafe fn multiply_columns<S: Isa, const N: usize, const AM: usize, const AK: usize, const BK: usize>(
    m: usize,
    k: usize,
    o: Operands,
) {
    let mut row = 0;
    // SAFETY: guaranteed by the caller.
    unsafe {
        while m - row >= 6 {
            multiply_tile::<S, 6, N, AM, AK, BK>(k, o.at_row(row, AM));
            row += 6;
        }
        if m - row >= 4 {
            multiply_tile::<S, 4, N, AM, AK, BK>(k, o.at_row(row, AM));
            row += 4;
        }
        if m - row >= 2 {
            multiply_tile::<S, 2, N, AM, AK, BK>(k, o.at_row(row, AM));
            row += 2;
        }
        if m - row >= 1 {
            multiply_tile::<S, 1, N, AM, AK, BK>(k, o.at_row(row, AM));
        }
    }
}

#[inline(always)]
unsafe fn multiply_tile<
    S: Isa,
    const M: usize,
    const N: usize,
    const AM: usize,
    const AK: usize,
    const BK: usize,
>(
    k: usize,
    o: Operands,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[S::V::splat(0.0); N]; M];
        for i in 0..k {
            let mut row = [S::V::splat(0.0); N];
            for (n, v) in row.iter_mut().enumerate() {
                *v = S::V::load(o.b.add(i * BK + n * S::WIDTH));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let a = S::V::splat(*o.a.add(m * AM + i * AK));
                for (s, v) in sums.iter_mut().zip(&row) {
                    *s = S::add(a, *v, *s);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, s) in sums.iter().enumerate() {
                let c = o.c.add(m * o.c_row + n * S::WIDTH);
                (if o.add { S::V::load(c).add(*s) } else { *s }).store(c);
            }
        }
    }
}
