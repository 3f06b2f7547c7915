//! The microkernel: one tile of C in registers, rows × vectors of accumulators.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64;

use super::prefetch::{self, Prefetch};
use crate::simd::level::Level;
use crate::simd::{Isa, Lanes};

/// Terms per step. Compiled microkernels prefetch once per step.
pub const STRIDE: usize = 16;
/// Terms between prefetches of assembly microkernels.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LONG_STRIDE: usize = 4 * STRIDE;
/// Terms per pointer increment. Any other instruction per term competes with multiply-adds for ports.
const UNROLLED: usize = 4;

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
pub struct More {
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
    pub more: Option<&'a More>,
    // Read by AMX only.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub kept: Option<Kept>,
}

/// Sums that are kept from block to block of K, as whole tiles.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Kept {
    pub at: *mut f32,
    /// Whether the buffer holds sums of earlier blocks.
    pub begun: bool,
    /// Whether more blocks follow.
    pub goes_on: bool,
}

/// Pointers to a term of A's rows. Every third row has a pointer; the next two rows are addressed by the stride and
/// twice the stride. With one pointer, compilers derive each row's address from the row before, a chain of additions
/// that takes longer than the multiply-adds.
#[derive(Clone, Copy)]
struct Rows {
    // Separate fields, since an array would stay in memory.
    at: *const f32,
    at_3: *const f32,
    at_6: *const f32,
    at_9: *const f32,
    step: usize,
}

impl Rows {
    #[inline(always)]
    fn new(a: Left) -> Rows {
        let at = |row: usize| a.at.wrapping_add(row * a.row);
        Rows { at: at(0), at_3: at(3), at_6: at(6), at_9: at(9), step: a.row }
    }

    #[inline(always)]
    fn of(self, row: usize) -> *const f32 {
        let at = match row / 3 {
            0 => self.at,
            1 => self.at_3,
            2 => self.at_6,
            _ => self.at_9,
        };
        at.wrapping_add(row % 3 * self.step)
    }

    /// Advances by `elements`.
    #[inline(always)]
    fn on(self, elements: usize) -> Rows {
        let on = |at: *const f32| opaque(at.wrapping_add(elements));
        Rows { at: on(self.at), at_3: on(self.at_3), at_6: on(self.at_6), at_9: on(self.at_9), ..self }
    }
}

/// Hides the pointer's origin from the compiler, without an instruction, so that it does not derive one pointer from
/// another.
#[inline(always)]
// The address is passed through; its target is neither read nor written.
#[allow(clippy::pointers_in_nomem_asm_block)]
fn opaque(at: *const f32) -> *const f32 {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    let at = {
        let mut at = at;
        // SAFETY: the assembly is empty.
        unsafe { std::arch::asm!("/* {} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
        at
    };
    at
}

/// Whether the level's largest microkernels interleave packing (`Prefetch::packing`) where A's terms are contiguous.
/// AVX2's do, in assembly.
// On other architectures there is nothing to match.
#[cfg_attr(any(not(target_arch = "x86_64"), miri), allow(clippy::match_single_binding))]
pub fn packs(level: Level) -> bool {
    match level {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        Level::Avx2 => true,
        _ => false,
    }
}

/// Computes a tile of `ROWS` rows, and prefetches `next` meanwhile.
///
/// # Safety
/// The processor has S's instructions; the operands cover the tile's rows, terms and columns (`VECTORS` whole vectors
/// unless `MASKED`).
#[inline(always)]
pub unsafe fn tile<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
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
        epilogue::<S, ROWS, VECTORS, MASKED>(sums, t);
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
        let (mut a_at, mut b_at) = (Rows::new(a).on(done * a.k), b.at.add(done * b.k));
        for from in (done..k).step_by(STRIDE) {
            next.fetch(1);
            let terms = STRIDE.min(k - from);
            for _ in 0..terms / TERMS {
                for term in 0..TERMS {
                    let right = columns::<S, VECTORS, MASKED>(b_at, width);
                    add::<S, ROWS, VECTORS, false>(right, a_at, term, &mut sums);
                    b_at = b_at.add(b.k);
                }
                a_at = a_at.on(TERMS * a.k);
            }
            for _ in 0..terms % TERMS {
                let right = columns::<S, VECTORS, MASKED>(b_at, width);
                add::<S, ROWS, VECTORS, false>(right, a_at, 0, &mut sums);
                b_at = b_at.add(b.k);
                a_at = a_at.on(a.k);
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
            prefetch::to_write(s.c.wrapping_add(i * s.row + j * S::WIDTH).cast());
        }
    }
}

/// Loads `width` contiguous elements; the rest of the last vector is 0 where `MASKED`.
#[inline(always)]
unsafe fn columns<S: Isa, const VECTORS: usize, const MASKED: bool>(
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
/// As for `tile`.
#[inline(always)]
pub unsafe fn epilogue<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    mut sums: [[S::V; VECTORS]; ROWS],
    t: &TileProduct,
) {
    let &TileProduct { width, epilogue: s, more, .. } = t;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let alpha = S::V::splat(s.alpha);
        let bias = (!s.bias.is_null()).then(|| columns::<S, VECTORS, MASKED>(s.bias, width));
        for (i, sums) in sums.iter_mut().enumerate() {
            let before = s.accumulate.then(|| columns::<S, VECTORS, MASKED>(s.c.add(i * s.row), width));
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
        if let Some(m) = more {
            let mut added = [[S::zero(); VECTORS]; ROWS];
            let (mut a_at, mut b_at) = (Rows::new(m.a), m.b.at);
            for _ in 0..m.k {
                let right = columns::<S, VECTORS, MASKED>(b_at, width);
                add::<S, ROWS, VECTORS, true>(right, a_at, 0, &mut added);
                a_at = a_at.on(m.a.k);
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
    a: Rows,
    term: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let left = S::V::splat(*a.of(i).wrapping_add(term));
            for (sum, v) in sums.iter_mut().zip(right) {
                *sum = if EXACT { left.fma(v, *sum) } else { S::add(left, v, *sum) };
            }
        }
    }
}
