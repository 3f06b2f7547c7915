//! The microkernel: one tile of C in registers, rows × vectors of accumulators.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "aarch64")]
pub mod bfmmla;
pub mod prefetch;
pub mod row_pointers;
pub mod tiles;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64;

use self::prefetch::Prefetch;
use self::row_pointers::{RowPointers, STRIDE};
use super::arguments::{Epilogue, TileProduct};
use super::cache_line;
use crate::simd::{Isa, Lanes};

/// Terms per pointer increment. Any other instruction per term competes with multiply-adds for ports.
const UNROLLED: usize = 4;

/// Computes a tile of `ROWS` rows, and prefetches `next` meanwhile.
///
/// # Safety
/// The processor has S's instructions; the operands cover the tile's rows, terms and columns (`VECTORS` whole vectors
/// unless `MASKED`).
#[inline(always)]
pub unsafe fn compute_tile<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    t: &TileProduct,
    next: &mut Prefetch,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        prefetch_sums::<S, ROWS, VECTORS>(&t.epilogue);
        let sums = match t.a.k {
            1 => sum::<S, ROWS, VECTORS, MASKED, UNROLLED>(t, next),
            _ => sum::<S, ROWS, VECTORS, MASKED, 1>(t, next),
        };
        apply_epilogue::<S, ROWS, VECTORS, MASKED>(sums, t);
    }
}

/// The sums of a tile. `TERMS` terms share an addition to each of A's pointers; they are contiguous if there are
/// several. Tiles of 6 × 2 vectors on AVX2 and of 8 × 3 on AVX-512 are mostly summed in assembly, where B is packed.
#[inline(always)]
unsafe fn sum<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool, const TERMS: usize>(
    t: &TileProduct,
    next: &mut Prefetch,
) -> [[S::V; VECTORS]; ROWS] {
    let &TileProduct { k, a, b, width, .. } = t;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut sums = [[S::zero(); VECTORS]; ROWS];
        let done = match b.k == VECTORS * S::WIDTH && TERMS > 1 && !MASKED {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            true => x86_64::sum::<S, ROWS, VECTORS>(t, next, &mut sums),
            _ => 0,
        };
        let (mut a_at, mut b_at) = (RowPointers::new(a).advance(done * a.k), b.at.add(done * b.k));
        for from in (done..k).step_by(STRIDE) {
            next.fetch(1);
            let terms = STRIDE.min(k - from);
            for _ in 0..terms / TERMS {
                for term in 0..TERMS {
                    let right = load_columns::<S, VECTORS, MASKED>(b_at, width);
                    add::<S, ROWS, VECTORS, false>(right, a_at, term, &mut sums);
                    b_at = b_at.add(b.k);
                }
                a_at = a_at.advance(TERMS * a.k);
            }
            for _ in 0..terms % TERMS {
                let right = load_columns::<S, VECTORS, MASKED>(b_at, width);
                add::<S, ROWS, VECTORS, false>(right, a_at, 0, &mut sums);
                b_at = b_at.add(b.k);
                a_at = a_at.advance(a.k);
            }
        }
        sums
    }
}

/// Prefetches the part of C that the tile will write.
#[inline(always)]
pub fn prefetch_sums<S: Isa, const ROWS: usize, const VECTORS: usize>(s: &Epilogue) {
    for i in 0..ROWS {
        for j in 0..VECTORS {
            cache_line::prefetch_for_write(s.c.wrapping_add(i * s.row + j * S::WIDTH).cast());
        }
    }
}

/// Loads `width` contiguous elements; the rest of the last vector is 0 where `MASKED`.
#[inline(always)]
unsafe fn load_columns<S: Isa, const VECTORS: usize, const MASKED: bool>(
    at: *const f32,
    width: usize,
) -> [S::V; VECTORS] {
    // SAFETY: guaranteed by the caller; a masked last vector ends at `width`.
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

/// Applies the epilogue to a tile's sums and stores the result.
///
/// # Safety
/// As for `compute_tile`.
#[inline(always)]
pub unsafe fn apply_epilogue<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    mut sums: [[S::V; VECTORS]; ROWS],
    t: &TileProduct,
) {
    let &TileProduct { width, epilogue: s, second, .. } = t;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let alpha = S::V::splat(s.alpha);
        let bias = (!s.bias.is_null()).then(|| load_columns::<S, VECTORS, MASKED>(s.bias, width));
        for (i, sums) in sums.iter_mut().enumerate() {
            let before = s.accumulate.then(|| load_columns::<S, VECTORS, MASKED>(s.c.add(i * s.row), width));
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
        if let Some(m) = second {
            let mut added = [[S::zero(); VECTORS]; ROWS];
            let (mut a_at, mut b_at) = (RowPointers::new(m.a), m.b.at);
            for _ in 0..m.k {
                let right = load_columns::<S, VECTORS, MASKED>(b_at, width);
                add::<S, ROWS, VECTORS, true>(right, a_at, 0, &mut added);
                a_at = a_at.advance(m.a.k);
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

/// Adds the outer product of a column of A and a row of B to the sums, in f32 (`EXACT`) or by S's products.
#[inline(always)]
unsafe fn add<S: Isa, const ROWS: usize, const VECTORS: usize, const EXACT: bool>(
    right: [S::V; VECTORS],
    a: RowPointers,
    term: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let left = S::V::splat(*a.row(i).wrapping_add(term));
            for (sum, v) in sums.iter_mut().zip(right) {
                *sum = if EXACT { left.fma(v, *sum) } else { S::add(left, v, *sum) };
            }
        }
    }
}
