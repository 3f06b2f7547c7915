//! Unpacking by vectors, which decoding would otherwise wait for. Codes of 4 bits are indices into a table of 16
//! values, derived from the scale, so a vector of elements takes a load and a permutation.

use super::PART;
use crate::simd::Lanes;

/// The vectors of `PART` elements: the first `PART / LANES` of the array.
pub type Part<L> = [L; PART / 4];

/// Calls `vector` with each vector's first element.
///
/// # Safety
/// As for `Lanes`.
#[inline(always)]
pub(super) unsafe fn map_vectors<L: Lanes>(vector: impl Fn(usize) -> L) -> Part<L> {
    // SAFETY: guaranteed by the caller.
    let mut part = [unsafe { L::splat(0.0) }; PART / 4];
    for (i, to) in part.iter_mut().enumerate().take(PART / L::LANES) {
        *to = vector(i * L::LANES);
    }
    part
}

/// 0 to 15.
pub(super) const COUNTED: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// scale · base + more, as the vectors of a table.
///
/// # Safety
/// As for `Lanes`.
#[inline(always)]
pub(super) unsafe fn scale_table<L: Lanes>(base: &[f32; 16], scale: L, more: Option<L>) -> [L; 4] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut table = [L::splat(0.0); 4];
        for (i, vector) in table.iter_mut().enumerate().take(16 / L::LANES) {
            let product = L::load(base.as_ptr().add(i * L::LANES)).mul(scale);
            *vector = more.map_or(product, |more| product.add(more));
        }
        table
    }
}

/// `PART` elements; byte i holds the i-th (low) and the (16 + i)-th (high).
///
/// # Safety
/// As for `Lanes`; `codes` covers 16 bytes.
#[inline(always)]
pub(super) unsafe fn look_up_halves<L: Lanes>(table: &[L; 4], codes: *const u8) -> Part<L> {
    // SAFETY: guaranteed by the caller.
    unsafe {
        map_vectors(|i| match i < PART / 2 {
            true => L::pick::<0>(table, codes.add(i)),
            false => L::pick::<4>(table, codes.add(i - PART / 2)),
        })
    }
}

/// `PART` elements, each in four bits of a byte from `SHIFT` on.
///
/// # Safety
/// As for `look_up_halves`; `codes` covers 32 bytes.
#[inline(always)]
pub(super) unsafe fn look_up_nibbles<L: Lanes, const SHIFT: u32>(
    table: &[L; 4],
    codes: *const u8,
) -> Part<L> {
    // SAFETY: guaranteed by the caller.
    unsafe { map_vectors(|i| L::pick::<SHIFT>(table, codes.add(i))) }
}
