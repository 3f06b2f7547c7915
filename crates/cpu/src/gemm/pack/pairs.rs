//! Packs factors as pairs of bf16: two consecutive terms share an element of 32 bits.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::bf16;

use crate::gemm::arguments::{Left, Source};
use crate::simd::Lanes;

/// Bf16 elements per vector, and columns per panel.
const WIDTH: usize = 32;
/// Pairs per vector.
const PAIRS: usize = 16;

/// A mask with the first `count` of 32 bits set.
fn mask_first(count: usize) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

/// Rounds `rows` rows of `k` terms to nearest even, as pairs, with leading dimension `to_row`.
///
/// # Safety
/// The processor has the instructions; `a` covers the rows and terms; `to` covers rows of ⌈k / 2⌉ elements, rounded up
/// to 16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_a(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for i in 0..rows {
            round_row(Left { at: a.at.add(i * a.row), ..a }, k, to.add(i * to_row), PAIRS);
        }
    }
}

/// Rounds a row of `k` terms to nearest even; vectors of 16 pairs have a stride of `step` elements.
///
/// # Safety
/// The processor has the instructions; `a` covers the terms, and `to` covers the vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn round_row(a: Left, k: usize, to: *mut f32, step: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for t in (0..k).step_by(WIDTH) {
            let count = (k - t).min(WIDTH);
            let (low, high) = if a.k == 1 && count == WIDTH {
                (_mm512_loadu_ps(a.at.add(t)), _mm512_loadu_ps(a.at.add(t + PAIRS)))
            } else {
                let mut terms = [0f32; WIDTH];
                for (u, term) in terms.iter_mut().enumerate().take(count) {
                    *term = *a.at.add((t + u) * a.k);
                }
                (_mm512_loadu_ps(terms.as_ptr()), _mm512_loadu_ps(terms.as_ptr().add(PAIRS)))
            };
            let both = transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_ps(to.add(t / WIDTH * step), both);
        }
    }
}

/// Packs `k` rows of `width` columns of B into ⌈k / 2⌉ rows of pairs, with zeros after the last column and after an odd
/// last row.
///
/// # Safety
/// The processor has the instructions; `b` covers the block, and `to` covers ⌈k / 2⌉ rows of the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_b(b: Source<*const bf16>, k: usize, width: usize, panel: usize, to: *mut f32) {
    debug_assert_eq!(panel, WIDTH);
    // SAFETY: guaranteed by the caller.
    unsafe {
        if b.row == 1 {
            pack_along_k(b, k, width, to);
        } else if b.column == 1 {
            pack_across_k(b, k, width, to);
        } else {
            for p in 0..k.div_ceil(2) {
                for j in 0..WIDTH {
                    let term = |t: usize| {
                        if j < width && t < k { (*b.at.add(t * b.row + j * b.column)).to_bits() } else { 0 }
                    };
                    *to.add(p * WIDTH + j).cast() = term(2 * p) as u32 | (term(2 * p + 1) as u32) << 16;
                }
            }
        }
    }
}

/// Packs a B that is contiguous along k: transposes squares of 16 columns by 16 pairs.
#[inline(always)]
unsafe fn pack_along_k(b: Source<*const bf16>, k: usize, width: usize, to: *mut f32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for j in (0..WIDTH).step_by(PAIRS) {
            for t in (0..k).step_by(WIDTH) {
                let (terms, pairs) = (mask_first(k - t), (k - t).div_ceil(2));
                let mut square = [_mm512_setzero_ps(); PAIRS];
                // Loops of constant length keep the square in registers.
                for (i, v) in square.iter_mut().enumerate() {
                    let (column, mask) = if j + i < width { (j + i, terms) } else { (0, 0) };
                    let from = b.at.add(column * b.column + t);
                    *v = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, from.cast()));
                }
                __m512::transpose(&mut square);
                let to = to.add(t / 2 * WIDTH + j);
                if pairs >= PAIRS {
                    for (i, v) in square.iter().enumerate() {
                        _mm512_storeu_ps(to.add(i * WIDTH), *v);
                    }
                } else {
                    for (i, v) in square.iter().enumerate().take(pairs) {
                        _mm512_storeu_ps(to.add(i * WIDTH), *v);
                    }
                }
            }
        }
    }
}

/// Packs a row-major B: interleaves two rows.
#[inline(always)]
unsafe fn pack_across_k(b: Source<*const bf16>, k: usize, width: usize, to: *mut f32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let columns = mask_first(width);
        let places = |from: u32| -> __m512i {
            let place: [u32; PAIRS] = std::array::from_fn(|i| {
                let j = from + i as u32;
                j | (j + WIDTH as u32) << 16
            });
            _mm512_loadu_si512(place.as_ptr().cast())
        };
        let (low, high) = (places(0), places(PAIRS as u32));
        for p in 0..k.div_ceil(2) {
            let from = b.at.add(2 * p * b.row);
            let even = _mm512_maskz_loadu_epi16(columns, from.cast());
            let odd = if 2 * p + 1 < k {
                _mm512_maskz_loadu_epi16(columns, from.add(b.row).cast())
            } else {
                _mm512_setzero_si512()
            };
            let to = to.add(p * WIDTH);
            _mm512_storeu_si512(to.cast(), _mm512_permutex2var_epi16(even, low, odd));
            _mm512_storeu_si512(to.add(PAIRS).cast(), _mm512_permutex2var_epi16(even, high, odd));
        }
    }
}
