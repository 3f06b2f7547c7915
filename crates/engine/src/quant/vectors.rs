//! Unpacking by vectors: what decoding waits for otherwise. Codes of 4 bits are places in a table of the 16 values that
//! a
//! scale gives, so that a vector of elements is a load and a permutation.

use super::PART;
use crate::simd::Lanes;

/// 0 to 15.
pub(super) const COUNTED: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// scale · base + more, as the vectors of a table.
///
/// # Safety
/// As `Lanes`.
#[inline(always)]
pub(super) unsafe fn table<L: Lanes>(base: &[f32; 16], scale: f32, more: Option<f32>) -> [L; 4] {
    // SAFETY: the caller's.
    unsafe {
        let (scale, mut table) = (L::splat(scale), [L::splat(0.0); 4]);
        for (i, vector) in table.iter_mut().enumerate().take(16 / L::LANES) {
            let product = L::load(base.as_ptr().add(i * L::LANES)).mul(scale);
            *vector = more.map_or(product, |more| product.add(L::splat(more)));
        }
        table
    }
}

/// `PART` elements, of which byte i has the i-th low and the (16 + i)-th high.
///
/// # Safety
/// As `Lanes`: `codes` reaches over 16 bytes, `out` over the elements.
#[inline(always)]
pub(super) unsafe fn halves<L: Lanes>(table: &[L; 4], codes: *const u8, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        for i in (0..PART / 2).step_by(L::LANES) {
            L::pick::<0>(table, codes.add(i)).store(out.add(i));
            L::pick::<4>(table, codes.add(i)).store(out.add(PART / 2 + i));
        }
    }
}

/// `PART` elements, each of a byte's four bits from `SHIFT` on.
///
/// # Safety
/// As `halves`, of 32 bytes.
#[inline(always)]
pub(super) unsafe fn nibbles<L: Lanes, const SHIFT: u32>(table: &[L; 4], codes: *const u8, out: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        for i in (0..PART).step_by(L::LANES) {
            L::pick::<SHIFT>(table, codes.add(i)).store(out.add(i));
        }
    }
}
