//! The arguments of kernels: views of A, B and C, and the types of packing functions, microkernels and GEMV kernels.

use half::{bf16, f16};

use crate::quant::coded::Arrangement;
use crate::simd::Lanes;

/// Most rows of A for which GEMV kernels are used.
pub const MAX_GEMV_ROWS: usize = 8;
/// Columns that GEMV kernels sum before their epilogue.
pub const COLUMNS: usize = 64;

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
pub trait Position: Copy {
    /// The position `elements` further. It may be outside of B, as long as it is not read there.
    fn plus(self, elements: usize) -> Self;

    /// The address of the element's first byte.
    fn address(self) -> *const u8;

    /// The size of `elements` contiguous elements, in bytes; approximate for blocks.
    fn bytes(self, elements: usize) -> usize;
}

impl<T> Position for *const T {
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

/// A tile's rows of A: a pointer to the first element and the strides, in elements.
#[derive(Clone, Copy)]
pub struct Left {
    pub at: *const f32,
    pub row: usize,
    pub k: usize,
}

/// A tile's columns of B, which are contiguous; `k` is the stride from row to row.
#[derive(Clone, Copy)]
pub struct Right {
    pub at: *const f32,
    pub k: usize,
}

/// The epilogue: c = (c) + alpha · sum + (bias).
#[derive(Clone, Copy)]
pub struct Epilogue {
    pub c: *mut f32,
    pub row: usize,
    pub alpha: f32,
    /// Null if there is no bias.
    pub bias: *const f32,
    pub accumulate: bool,
}

/// A second f32 product, added to the result of the epilogue before it is stored: alpha · A·B over `k` terms.
#[derive(Clone, Copy)]
pub struct SecondTile {
    pub k: usize,
    pub a: Left,
    pub b: Right,
    pub alpha: f32,
}

/// The arguments of a microkernel: a tile of C, its factors and its epilogue.
#[derive(Clone, Copy)]
pub struct TileProduct<'a> {
    pub rows: usize,
    /// Elements per row of A that are summed; an element is a pair of terms where factors are packed as pairs.
    pub k: usize,
    pub a: Left,
    pub b: Right,
    /// Columns of the tile.
    pub width: usize,
    pub epilogue: Epilogue,
    pub second: Option<&'a SecondTile>,
    // Read by AMX only.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub kept: Option<PartialSums>,
}

/// Sums that are kept from block to block of K, as whole tiles.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct PartialSums {
    pub at: *mut f32,
    /// Whether the buffer holds sums of earlier blocks.
    pub resumed: bool,
    /// Whether more blocks follow.
    pub continues: bool,
}

/// Dot products of rows of A and rows of a weight, both contiguous along k.
#[derive(Clone, Copy)]
pub struct DotProducts<P> {
    /// Terms, which are contiguous.
    pub k: usize,
    pub a: Left,
    pub w: P,
    /// The stride from row to row of the weight, in elements.
    pub step: usize,
    /// Rows of the weight, at most `COLUMNS`.
    pub columns: usize,
}

/// Sums by row of A, then by row of the weight.
pub type Sums = [[f32; COLUMNS]; MAX_GEMV_ROWS];

/// A strip of columns of a row-major B, and the sums of A's rows over it.
pub struct Strip<P> {
    /// Rows of A.
    pub rows: usize,
    /// Terms: rows of B.
    pub k: usize,
    pub a: Left,
    pub b: P,
    pub b_row: usize,
    /// Columns of B.
    pub width: usize,
    /// [rows, width]
    pub sums: *mut f32,
}

/// Packs `rows` rows of `k` terms of A; arguments: A, `rows`, `k`, the destination, its leading dimension.
pub type PackA = unsafe fn(Left, usize, usize, *mut f32, usize);

pub type DotKernel<P> = unsafe fn(DotProducts<P>, &mut Sums);
pub type StripKernel<P> = unsafe fn(Strip<P>);
pub type PackB<P> = unsafe fn(Source<P>, usize, usize, usize, *mut f32);

/// The kernel `dots` for one row of A in the arrangement that it needs.
#[derive(Clone, Copy)]
pub struct ArrangedRow<P> {
    pub arrangement: Arrangement,
    pub dots: DotKernel<P>,
}
