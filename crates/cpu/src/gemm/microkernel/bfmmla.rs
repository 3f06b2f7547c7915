//! Products of bf16 by aarch64's BFMMLA, which adds the product of a 2 × 4 and a 4 × 2 matrix of bf16 to 2 × 2 sums.
//!
//! Rows of A are rounded and stay rows; two are read together; a panel of B has its columns in pairs, four
//! terms each. The instruction rounds inside its sums and flushes subnormals, so factors below 1.2e-38 count as 0. Rust
//! has no stable intrinsic for it yet, so it is written as inline assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use half::bf16;

use super::prefetch::Prefetch;
use super::row_pointers::STRIDE;
use super::tiles::{Tiles, variants};
use crate::gemm::arguments::{Left, Source, TileProduct};
use crate::gemm::microkernel;
use crate::gemm::pack::a::round_to_bf16;
use crate::simd::{Baseline, Isa, Lanes};

/// Terms per instruction.
pub const TERMS: usize = 4;
/// Columns per panel.
const WIDTH: usize = 2 * Baseline::WIDTH;

/// Rounds `rows` rows of `k` terms to nearest even, two per element, padded with zeros to a multiple of `TERMS`.
///
/// # Safety
/// `a` covers the rows and terms; `to` covers rows of ⌈k / 2⌉ elements, rounded up to 16, with leading dimension
/// `to_row`.
pub unsafe fn pack_a(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    let bits = |v: f32| (round_to_bf16(v).to_bits() >> 16) as u16 | if v.is_nan() { 0x40 } else { 0 };
    for i in 0..rows {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (from, to) = (a.at.add(i * a.row), to.add(i * to_row).cast::<u16>());
            if a.k == 1 {
                (0..k).for_each(|t| *to.add(t) = bits(*from.add(t)));
            } else {
                (0..k).for_each(|t| *to.add(t) = bits(*from.add(t * a.k)));
            }
            (k..k.next_multiple_of(TERMS)).for_each(|t| *to.add(t) = 0);
        }
    }
}

/// Packs `k` rows of `width` columns of B, with zeros after the last column and up to a multiple of `TERMS` rows.
///
/// # Safety
/// `b` covers the block; `to` covers ⌈k / 2⌉ rows of the panel, rounded up to an even number.
pub unsafe fn pack_b(b: Source<*const bf16>, k: usize, width: usize, panel: usize, to: *mut f32) {
    debug_assert_eq!(panel, WIDTH);
    for (t, place) in (0..k).step_by(TERMS).zip(0..) {
        // The terms of each column.
        let mut four = [[0u16; TERMS]; WIDTH];
        // SAFETY: guaranteed by the caller; within `width` and `k`.
        unsafe {
            if b.row == 1 && t + TERMS <= k {
                for (j, four) in four.iter_mut().enumerate().take(width) {
                    *four = b.at.add(j * b.column + t).cast::<[u16; TERMS]>().read_unaligned();
                }
            } else if b.column == 1 && width == WIDTH && t + TERMS <= k {
                let rows: [[u16; WIDTH]; TERMS] = std::array::from_fn(|u| {
                    b.at.add((t + u) * b.row).cast::<[u16; WIDTH]>().read_unaligned()
                });
                for (j, four) in four.iter_mut().enumerate() {
                    *four = std::array::from_fn(|u| rows[u][j]);
                }
            } else {
                for (j, four) in four.iter_mut().enumerate().take(width) {
                    for (u, term) in four.iter_mut().enumerate().take(k - t) {
                        *term = (*b.at.add((t + u) * b.row + j * b.column)).to_bits();
                    }
                }
            }
            to.add(place * 2 * WIDTH).cast::<[[u16; TERMS]; WIDTH]>().write_unaligned(four);
        }
    }
}

/// sum + left · right, where both have two rows, or columns, of `TERMS` terms.
///
/// # Safety
/// The processor has the instruction, and the calling function enables it.
#[inline(always)]
unsafe fn multiply(left: uint16x8_t, right: uint16x8_t, mut sum: float32x4_t) -> float32x4_t {
    // SAFETY: the instruction accesses these registers only.
    unsafe {
        asm!(
            "bfmmla {sum:v}.4s, {left:v}.8h, {right:v}.8h",
            sum = inout(vreg) sum,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// As for `microkernel::compute_tile`, for factors packed by `pack_a` and `pack_b`.
///
/// # Safety
/// As for `microkernel::compute_tile`; `k` is even, and the processor has the instruction.
#[target_feature(enable = "neon,bf16")]
unsafe fn compute_tile<const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    t: &TileProduct,
    ahead: &mut Prefetch,
) {
    let &TileProduct { k, a, b, .. } = t;
    // Pairs of rows; pairs of columns follow below.
    const PAIRS: usize = Baseline::ROWS / 2;
    let (rows, columns) = (ROWS.div_ceil(2), 2 * VECTORS);
    // SAFETY: guaranteed by the caller.
    unsafe {
        microkernel::prefetch_sums::<Baseline, ROWS, VECTORS>(&t.epilogue);
        let mut sums = [[vdupq_n_f32(0.0); 4]; PAIRS];
        for from in (0..k).step_by(STRIDE) {
            ahead.fetch(1);
            for e in (from..k.min(from + STRIDE)).step_by(2) {
                let mut right = [vdupq_n_u16(0); 4];
                for (c, right) in right.iter_mut().enumerate().take(columns) {
                    *right = vld1q_u16(b.at.add(e * b.k + 4 * c).cast());
                }
                for (p, sums) in sums.iter_mut().enumerate().take(rows) {
                    let terms = |i: usize| match i < ROWS {
                        true => vld1_u16(a.at.add(i * a.row + e).cast()),
                        false => vdup_n_u16(0),
                    };
                    let left = vcombine_u16(terms(2 * p), terms(2 * p + 1));
                    for (c, sum) in sums.iter_mut().enumerate().take(columns) {
                        *sum = multiply(left, right[c], *sum);
                    }
                }
            }
        }
        // A register holds the sums of two rows and two columns.
        let mut lines = [[Baseline::zero(); VECTORS]; ROWS];
        for (i, line) in lines.iter_mut().enumerate() {
            for (j, v) in line.iter_mut().enumerate() {
                let [low, high] = [0, 1].map(|c| vreinterpretq_f64_f32(sums[i / 2][2 * j + c]));
                let both = if i % 2 == 0 { vzip1q_f64(low, high) } else { vzip2q_f64(low, high) };
                let mut four = [0f32; 4];
                vst1q_f32(four.as_mut_ptr(), vreinterpretq_f32_f64(both));
                *v = <Baseline as Isa>::V::load(four.as_ptr());
            }
        }
        microkernel::apply_epilogue::<Baseline, ROWS, VECTORS, MASKED>(lines, t);
    }
}

/// The microkernels by rows.
pub fn make_tiles() -> Tiles {
    Tiles::new(&variants!(2, compute_tile)[..Baseline::ROWS], 1, Baseline::WIDTH, None)
}
