//! The same product with tiles of 32 × 32 sums (AMX), from factors in pairs of bf16.
//!
//! A register has 16 pairs along k of either factor, so both are padded with zeros to whole registers. Padding only one
//! is not enough: leftover scratch values may be NaN, and 0 · NaN is NaN.

use crate::simd::amx::ROWS;
use crate::simd::amx::sums::{self, COLUMNS};

use super::pairs::TERMS;

// The padding of factors equals a register's length along k.
const _: () = assert!(TERMS == 2 * COLUMNS);

/// A factor or the sums: a pointer and the row stride in elements.
#[derive(Clone, Copy)]
pub struct Rows<P>(pub P, pub usize);

/// Computes C[m, n] (+)= A[m, k] · B[k, n] for n a multiple of 16. Pairs are adjacent in A's rows, and each of B's rows
/// has one pair of every column. C's rows past m are neither read nor written; A's are read up to a multiple of 16.
///
/// # Safety
/// The thread has `Configuration::WHOLE`. A, B and C are valid for the sizes and strides, A and B up to a multiple of
/// `TERMS` along k.
#[inline(always)]
pub unsafe fn multiply(
    [m, n, k]: [usize; 3],
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    add: bool,
) {
    let pairs = k.next_multiple_of(TERMS) / 2;
    for column in (0..n).step_by(2 * COLUMNS) {
        for row in (0..m).step_by(2 * ROWS) {
            let rows = (m - row).min(2 * ROWS);
            // SAFETY: guaranteed by the caller.
            unsafe {
                let a = Rows(a.0.add(row * a.1), a.1);
                let b = Rows(b.0.add(column), b.1);
                let c = Rows(c.0.add(row * c.1 + column), c.1);
                match (rows > ROWS, n - column > COLUMNS) {
                    (true, true) => multiply_tile::<true, true>(rows, pairs, a, b, c, add),
                    (true, false) => multiply_tile::<true, false>(rows, pairs, a, b, c, add),
                    (false, true) => multiply_tile::<false, true>(rows, pairs, a, b, c, add),
                    (false, false) => multiply_tile::<false, false>(rows, pairs, a, b, c, add),
                }
            }
        }
    }
}

/// # Safety
/// As for `product`, with the rows and columns of one tile.
#[inline(always)]
unsafe fn multiply_tile<const TALL: bool, const WIDE: bool>(
    rows: usize,
    pairs: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    add: bool,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if rows == if TALL { 2 * ROWS } else { ROWS } {
            sum_tiles::<TALL, WIDE>(pairs, a, b, c, add);
        } else {
            multiply_partial_tile::<TALL, WIDE>(rows, pairs, a, b, c, add);
        }
    }
}

/// A tile with fewer rows than the registers, through temporary memory.
///
/// # Safety
/// As for `multiply_tile`.
#[inline(never)]
unsafe fn multiply_partial_tile<const TALL: bool, const WIDE: bool>(
    rows: usize,
    pairs: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    add: bool,
) {
    #[repr(align(64))]
    struct Temporary([f32; 4 * ROWS * COLUMNS]);
    let mut temporary = Temporary([0.0; _]);
    let width = if WIDE { 2 * COLUMNS } else { COLUMNS };
    let at = temporary.0.as_mut_ptr();
    // SAFETY: guaranteed by the caller; C has the rows and columns, and `at` has room for all registers.
    unsafe {
        if add {
            (0..rows).for_each(|r| at.add(r * width).copy_from_nonoverlapping(c.0.add(r * c.1), width));
        }
        sum_tiles::<TALL, WIDE>(pairs, a, b, Rows(at, width), add);
        (0..rows).for_each(|r| c.0.add(r * c.1).copy_from_nonoverlapping(at.add(r * width), width));
    }
}

/// # Safety
/// As for `multiply_tile`, with whole registers.
#[inline(always)]
unsafe fn sum_tiles<const TALL: bool, const WIDE: bool>(
    pairs: usize,
    a: Rows<*const f32>,
    b: Rows<*const f32>,
    c: Rows<*mut f32>,
    add: bool,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match add {
            true => sums::load::<TALL, WIDE>(c.0, c.1),
            false => sums::zero(),
        }
        for from in (0..pairs).step_by(COLUMNS) {
            sums::add::<TALL, WIDE>(a.0.add(from), ROWS * a.1, a.1, b.0.add(from * b.1), b.1);
        }
        sums::store::<TALL, WIDE>(c.0, c.1);
    }
}
