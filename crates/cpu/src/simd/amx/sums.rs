//! Products with up to 2 × 2 registers of sums: registers 0 to 3 hold the sums, row by row; 4 and 5 hold A, 6 and 7
//! hold B.
//!
//! `TALL` means more than 16 rows, `WIDE` more than 16 columns; registers that are not needed stay unchanged. Strides
//! between rows are in elements of 32 bits.

use std::arch::asm;

use super::{BYTES, ROWS};

/// Columns of a register of sums, and pairs per row of a factor.
pub const COLUMNS: usize = BYTES / 4;

/// Sets the sums to 0.
///
/// # Safety
/// The thread has `Configuration::WHOLE`.
#[inline(always)]
pub unsafe fn zero() {
    // SAFETY: guaranteed by the caller.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, preserves_flags, nomem),
        );
    }
}

/// Loads the sums from `at`.
///
/// # Safety
/// As for `zero`; `at` covers whole registers.
#[inline(always)]
pub unsafe fn load<const TALL: bool, const WIDE: bool>(at: *const f32, row: usize) {
    let (lower, row) = (at.wrapping_add(ROWS * row), 4 * row);
    // SAFETY: guaranteed by the caller; each instruction reads the general registers that are given.
    unsafe {
        asm!("tileloadd tmm0, [{} + {}]", in(reg) at, in(reg) row, options(nostack, preserves_flags, readonly));
        if WIDE {
            asm!(
                "tileloadd tmm1, [{} + {} + 64]",
                in(reg) at,
                in(reg) row,
                options(nostack, preserves_flags, readonly)
            );
        }
        if TALL {
            asm!(
                "tileloadd tmm2, [{} + {}]",
                in(reg) lower,
                in(reg) row,
                options(nostack, preserves_flags, readonly)
            );
        }
        if TALL && WIDE {
            asm!(
                "tileloadd tmm3, [{} + {} + 64]",
                in(reg) lower,
                in(reg) row,
                options(nostack, preserves_flags, readonly)
            );
        }
    }
}

/// Adds the products of 32 terms.
///
/// # Safety
/// As for `zero`; A and B cover whole registers.
#[inline(always)]
pub unsafe fn add<const TALL: bool, const WIDE: bool>(
    a: *const f32,
    a_lower: usize,
    a_row: usize,
    b: *const f32,
    b_row: usize,
) {
    let lower = a.wrapping_add(a_lower);
    let (a_row, b_row) = (4 * a_row, 4 * b_row);
    // SAFETY: guaranteed by the caller; each instruction reads the general registers that are given.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm6, [{b} + {b_row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            a = in(reg) a,
            a_row = in(reg) a_row,
            b = in(reg) b,
            b_row = in(reg) b_row,
            options(nostack, preserves_flags, readonly),
        );
        if WIDE {
            asm!(
                "tileloadd tmm7, [{b} + {b_row} + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                b = in(reg) b,
                b_row = in(reg) b_row,
                options(nostack, preserves_flags, readonly),
            );
        }
        if TALL {
            asm!(
                "tileloadd tmm5, [{lower} + {a_row}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                lower = in(reg) lower,
                a_row = in(reg) a_row,
                options(nostack, preserves_flags, readonly),
            );
        }
        if TALL && WIDE {
            asm!("tdpbf16ps tmm3, tmm5, tmm7", options(nostack, preserves_flags, nomem));
        }
    }
}

/// Stores the sums.
///
/// # Safety
/// As for `load`.
#[inline(always)]
pub unsafe fn store<const TALL: bool, const WIDE: bool>(at: *mut f32, row: usize) {
    let (lower, row) = (at.wrapping_add(ROWS * row), 4 * row);
    // SAFETY: guaranteed by the caller.
    unsafe {
        asm!("tilestored [{} + {}], tmm0", in(reg) at, in(reg) row, options(nostack, preserves_flags));
        if WIDE {
            asm!("tilestored [{} + {} + 64], tmm1", in(reg) at, in(reg) row, options(nostack, preserves_flags));
        }
        if TALL {
            asm!("tilestored [{} + {}], tmm2", in(reg) lower, in(reg) row, options(nostack, preserves_flags));
        }
        if TALL && WIDE {
            asm!("tilestored [{} + {} + 64], tmm3", in(reg) lower, in(reg) row, options(nostack, preserves_flags));
        }
    }
}
