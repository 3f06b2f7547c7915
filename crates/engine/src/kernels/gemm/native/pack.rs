//! Packs a block of B into panels: for each group of columns its rows, contiguous, widened to f32 and padded with
//! zeros.

use half::{bf16, f16};

use crate::simd::Lanes;

/// An element of B's storage.
pub trait Element: Copy {
    fn widen(self) -> f32;
    /// # Safety
    /// As for `Lanes::load`.
    unsafe fn load<L: Lanes>(p: *const Self) -> L;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const f32) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load(p) }
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const f16) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load_f16(p) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const bf16) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load_bf16(p) }
    }
}

/// A position in B.
pub trait At: Copy {
    /// The position `elements` further. It may be outside of B, as long as it is not read there.
    fn plus(self, elements: usize) -> Self;

    /// The address of the element's first byte.
    fn address(self) -> *const u8;

    /// The size of `elements` contiguous elements, in bytes; approximate for blocks.
    fn bytes(self, elements: usize) -> usize;
}

impl<T> At for *const T {
    #[inline(always)]
    fn plus(self, elements: usize) -> Self {
        self.wrapping_add(elements)
    }

    #[inline(always)]
    fn address(self) -> *const u8 {
        self.cast()
    }

    #[inline(always)]
    fn bytes(self, elements: usize) -> usize {
        elements * size_of::<T>()
    }
}

/// A block of B: its first element and its strides.
#[derive(Clone, Copy)]
pub struct Source<P> {
    pub at: P,
    pub row: usize,
    pub column: usize,
}

/// Packs `k` rows of `width` columns into a panel; `width` is at most `panel`.
///
/// # Safety
/// The processor has L's instructions; `b` covers the block and `to` covers `k * panel` elements.
#[inline(always)]
pub unsafe fn pack<L: Lanes, T: Element>(
    b: Source<*const T>,
    k: usize,
    width: usize,
    panel: usize,
    to: *mut f32,
) {
    let Source { at: b, row, column } = b;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let whole = width / L::LANES * L::LANES;
        if column == 1 {
            for t in 0..k {
                let (from, to) = (b.add(t * row), to.add(t * panel));
                for j in (0..whole).step_by(L::LANES) {
                    T::load::<L>(from.add(j)).store(to.add(j));
                }
                for j in whole..panel {
                    *to.add(j) = if j < width { (*from.add(j)).widen() } else { 0.0 };
                }
            }
            return;
        }
        let squares = if row == 1 { k / L::LANES * L::LANES } else { 0 };
        for j in (0..whole).step_by(L::LANES) {
            for t in (0..squares).step_by(L::LANES) {
                let mut square = [L::splat(0.0); 16];
                for (i, v) in square.iter_mut().enumerate().take(L::LANES) {
                    *v = T::load(b.add((j + i) * column + t));
                }
                L::transpose(&mut square);
                for (i, v) in square.iter().enumerate().take(L::LANES) {
                    v.store(to.add((t + i) * panel + j));
                }
            }
        }
        // The remainder of the squares: the last rows, the last columns and the padding.
        for j in 0..panel {
            let from = if j < whole { squares } else { 0 };
            for t in from..k {
                *to.add(t * panel + j) = if j < width { (*b.add(t * row + j * column)).widen() } else { 0.0 };
            }
        }
    }
}
