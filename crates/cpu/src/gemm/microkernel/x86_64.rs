//! Assembly for f32 tiles of 6 × 2 vectors on AVX2 and 8 × 3 on AVX-512: sum[i][j] = Σₖ A[i][k] · B[k][j], in ascending
//! k, with the same bits as the compiled loop.
//!
//! A vector of B is loaded once for all rows, and an element of A is broadcast once for all vectors. Offsets of terms
//! are constants, and pointers advance every few terms, since integer additions compete with multiply-adds for ports. A
//! compiler's version of the loop differs between tile sizes and compiler versions: spilled accumulators cost 15%.

use std::any::TypeId;
use std::arch::asm;
use std::arch::x86_64::{__m256, __m512, _mm256_setzero_ps, _mm512_setzero_ps};
use std::mem::MaybeUninit;

use super::prefetch::Prefetch;
use super::row_pointers::{LONG_STRIDE, RowPointers, STRIDE};
use crate::gemm::arguments::TileProduct;
use crate::simd::{Avx2, Avx512, Isa};

/// Term granularity: one iteration of the loop on AVX2, two on AVX-512.
const ITERATION_TERMS: usize = 8;
const _: () = assert!(LONG_STRIDE.is_multiple_of(ITERATION_TERMS) && LONG_STRIDE.is_multiple_of(STRIDE));
const _: () = assert!(Avx2::ROWS == 6 && 2 * Avx512::ROWS / 3 == 8, "the largest tiles are none of these");

/// Sums a multiple of `ITERATION_TERMS` terms, if there is a loop for this tile size. Returns the number of terms
/// summed.
///
/// # Safety
/// As for `microkernel::tile`, for whole vectors; A's terms are contiguous, and B's row stride is the tile's width.
#[inline(always)]
pub unsafe fn sum<S: Isa, const ROWS: usize, const VECTORS: usize>(
    t: &TileProduct,
    next: &mut Prefetch,
    sums: &mut [[S::V; VECTORS]; ROWS],
) -> usize {
    let iterations = t.k / ITERATION_TERMS;
    if iterations == 0 {
        return 0;
    }
    // Accumulators whose address is taken stay in memory, so the compiled loop's are not passed.
    let mut to = MaybeUninit::<[[S::V; VECTORS]; ROWS]>::uninit();
    let set = TypeId::of::<S>();
    // SAFETY: guaranteed by the caller; S is the instruction set of the called function, which writes all sums.
    unsafe {
        match (ROWS, VECTORS) {
            (6, 2) if set == TypeId::of::<Avx2>() => sum_6_by_2(t, iterations, next, to.as_mut_ptr().cast()),
            (8, 3) if set == TypeId::of::<Avx512>() => {
                sum_8_by_3(t, iterations, next, to.as_mut_ptr().cast())
            }
            _ => return 0,
        }
        *sums = to.assume_init();
    }
    iterations * ITERATION_TERMS
}

/// Takes iterations from `iterations`, up to the next prefetch; then prefetches their share. Returns the number of
/// iterations taken.
#[inline(always)]
fn take_iterations(iterations: &mut usize, next: &mut Prefetch) -> usize {
    let taken = (*iterations).min(LONG_STRIDE / ITERATION_TERMS);
    *iterations -= taken;
    next.fetch((taken * ITERATION_TERMS).div_ceil(STRIDE));
    taken
}

/// Broadcasts an element of A and multiplies it by the vectors of a row of B.
macro_rules! row {
    ($at:literal $term:literal, $x:literal: $($sum:literal $b:literal),+) => {
        concat!(
            "vbroadcastss {", $x, "}, dword ptr [", $at, " + 4*", $term, "]\n",
            $("vfmadd231ps {", $sum, "}, {", $x, "}, {", $b, "}\n"),+
        )
    };
}

macro_rules! term_of_6_by_2 {
    ($term:literal) => {
        concat!(
            "vmovups {b0}, [{b} + 64*", $term, "]\n",
            "vmovups {b1}, [{b} + 64*", $term, " + 32]\n",
            row!("{a0}" $term, "x0": "s0" "b0", "s1" "b1"),
            row!("{a0} + {stride}" $term, "x1": "s2" "b0", "s3" "b1"),
            row!("{a0} + 2*{stride}" $term, "x0": "s4" "b0", "s5" "b1"),
            row!("{a3}" $term, "x1": "s6" "b0", "s7" "b1"),
            row!("{a3} + {stride}" $term, "x0": "s8" "b0", "s9" "b1"),
            row!("{a3} + 2*{stride}" $term, "x1": "s10" "b0", "s11" "b1"),
        )
    };
}

/// # Safety
/// As for `sum`.
#[target_feature(enable = "avx2,fma")]
unsafe fn sum_6_by_2(t: &TileProduct, mut iterations: usize, next: &mut Prefetch, to: *mut [[__m256; 2]; 6]) {
    let mut s = [[_mm256_setzero_ps(); 2]; 6];
    let (a, mut b) = (RowPointers::new(t.a), t.b.at);
    let (mut a0, mut a3) = (a.at, a.at_3);
    while iterations > 0 {
        let now = take_iterations(&mut iterations, next);
        // SAFETY: guaranteed by the caller: `now` iterations of 8 terms, each 32 bytes of a row of A and 512 bytes of
        // B.
        unsafe {
            asm!(
                "2:",
                term_of_6_by_2!("0"),
                term_of_6_by_2!("1"),
                term_of_6_by_2!("2"),
                term_of_6_by_2!("3"),
                term_of_6_by_2!("4"),
                term_of_6_by_2!("5"),
                term_of_6_by_2!("6"),
                term_of_6_by_2!("7"),
                "add {a0}, 32",
                "add {a3}, 32",
                "add {b}, 512",
                "dec {iterations}",
                "jnz 2b",
                a0 = inout(reg) a0, a3 = inout(reg) a3, stride = in(reg) 4 * a.step,
                b = inout(reg) b, iterations = inout(reg) now => _,
                b0 = out(ymm_reg) _, b1 = out(ymm_reg) _, x0 = out(ymm_reg) _, x1 = out(ymm_reg) _,
                s0 = inout(ymm_reg) s[0][0], s1 = inout(ymm_reg) s[0][1],
                s2 = inout(ymm_reg) s[1][0], s3 = inout(ymm_reg) s[1][1],
                s4 = inout(ymm_reg) s[2][0], s5 = inout(ymm_reg) s[2][1],
                s6 = inout(ymm_reg) s[3][0], s7 = inout(ymm_reg) s[3][1],
                s8 = inout(ymm_reg) s[4][0], s9 = inout(ymm_reg) s[4][1],
                s10 = inout(ymm_reg) s[5][0], s11 = inout(ymm_reg) s[5][1],
                options(readonly, nostack),
            );
        }
    }
    // SAFETY: guaranteed by the caller.
    unsafe { to.write(s) };
}

macro_rules! term_of_8_by_3 {
    ($term:literal) => {
        concat!(
            "vmovups {b0}, [{b} + 192*", $term, "]\n",
            "vmovups {b1}, [{b} + 192*", $term, " + 64]\n",
            "vmovups {b2}, [{b} + 192*", $term, " + 128]\n",
            row!("{a0}" $term, "x0": "s0" "b0", "s1" "b1", "s2" "b2"),
            row!("{a0} + {stride}" $term, "x1": "s3" "b0", "s4" "b1", "s5" "b2"),
            row!("{a0} + 2*{stride}" $term, "x0": "s6" "b0", "s7" "b1", "s8" "b2"),
            row!("{a3}" $term, "x1": "s9" "b0", "s10" "b1", "s11" "b2"),
            row!("{a3} + {stride}" $term, "x0": "s12" "b0", "s13" "b1", "s14" "b2"),
            row!("{a3} + 2*{stride}" $term, "x1": "s15" "b0", "s16" "b1", "s17" "b2"),
            row!("{a6}" $term, "x0": "s18" "b0", "s19" "b1", "s20" "b2"),
            row!("{a6} + {stride}" $term, "x1": "s21" "b0", "s22" "b1", "s23" "b2"),
        )
    };
}

/// # Safety
/// As for `sum`.
#[target_feature(enable = "avx512f")]
unsafe fn sum_8_by_3(t: &TileProduct, mut iterations: usize, next: &mut Prefetch, to: *mut [[__m512; 3]; 8]) {
    let mut s = [[_mm512_setzero_ps(); 3]; 8];
    let (a, mut b) = (RowPointers::new(t.a), t.b.at);
    let (mut a0, mut a3, mut a6) = (a.at, a.at_3, a.at_6);
    while iterations > 0 {
        let now = take_iterations(&mut iterations, next);
        // SAFETY: guaranteed by the caller: `now` pairs of iterations of 4 terms, each 16 bytes of a row of A and 768
        // bytes of B.
        unsafe {
            asm!(
                "2:",
                term_of_8_by_3!("0"),
                term_of_8_by_3!("1"),
                term_of_8_by_3!("2"),
                term_of_8_by_3!("3"),
                "add {a0}, 16",
                "add {a3}, 16",
                "add {a6}, 16",
                "add {b}, 768",
                "dec {fours}",
                "jnz 2b",
                a0 = inout(reg) a0, a3 = inout(reg) a3, a6 = inout(reg) a6, stride = in(reg) 4 * a.step,
                b = inout(reg) b, fours = inout(reg) ITERATION_TERMS / 4 * now => _,
                b0 = out(zmm_reg) _, b1 = out(zmm_reg) _, b2 = out(zmm_reg) _,
                x0 = out(zmm_reg) _, x1 = out(zmm_reg) _,
                s0 = inout(zmm_reg) s[0][0], s1 = inout(zmm_reg) s[0][1], s2 = inout(zmm_reg) s[0][2],
                s3 = inout(zmm_reg) s[1][0], s4 = inout(zmm_reg) s[1][1], s5 = inout(zmm_reg) s[1][2],
                s6 = inout(zmm_reg) s[2][0], s7 = inout(zmm_reg) s[2][1], s8 = inout(zmm_reg) s[2][2],
                s9 = inout(zmm_reg) s[3][0], s10 = inout(zmm_reg) s[3][1], s11 = inout(zmm_reg) s[3][2],
                s12 = inout(zmm_reg) s[4][0], s13 = inout(zmm_reg) s[4][1], s14 = inout(zmm_reg) s[4][2],
                s15 = inout(zmm_reg) s[5][0], s16 = inout(zmm_reg) s[5][1], s17 = inout(zmm_reg) s[5][2],
                s18 = inout(zmm_reg) s[6][0], s19 = inout(zmm_reg) s[6][1], s20 = inout(zmm_reg) s[6][2],
                s21 = inout(zmm_reg) s[7][0], s22 = inout(zmm_reg) s[7][1], s23 = inout(zmm_reg) s[7][2],
                options(readonly, nostack),
            );
        }
    }
    // SAFETY: guaranteed by the caller.
    unsafe { to.write(s) };
}
