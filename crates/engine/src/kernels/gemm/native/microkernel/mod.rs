//! One tile of C in registers: rows × vectors of accumulators over the terms that are summed at once.

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86_64;

use super::prefetch::{self, Prefetch};
use crate::simd::level::Level;
use crate::simd::{Isa, Lanes};

/// Elements of k of a step. Compiled loops ask for what comes next once a step.
pub const STRIDE: usize = 16;
/// Elements of k between two askings of loops in assembly: every 16 terms, asking took 3% of a product by AVX2. Compiled
/// loops came out 15% slower with it (8 × 2 by AVX-512).
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LONG_STRIDE: usize = 4 * STRIDE;
/// Terms to an addition to a pointer. What else is done for a term takes ports of multiply-adds.
const UNROLLED: usize = 4;

/// Where a factor's elements lie: the pointer to the tile's first, and the steps in elements.
#[derive(Clone, Copy)]
pub struct Left {
    pub at: *const f32,
    pub row: usize,
    pub k: usize,
}

/// B's columns are neighbours; `k` elements lie between its rows.
#[derive(Clone, Copy)]
pub struct Right {
    pub at: *const f32,
    pub k: usize,
}

/// What is done with the sums: c = (c) + alpha · sum + (bias).
#[derive(Clone, Copy)]
pub struct Epilogue {
    pub c: *mut f32,
    pub row: usize,
    pub alpha: f32,
    /// Null for none.
    pub bias: *const f32,
    pub accumulate: bool,
}

/// A second sum of products of f32: what the first's epilogue gives gets `alpha` times it more, before it is stored.
/// A tile of its own, which reads and writes C again, took 8 to 12% more of a product of K = 576 and R = 16 whose C
/// no cache holds.
#[derive(Clone, Copy)]
pub struct More {
    pub k: usize,
    pub a: Left,
    pub b: Right,
    pub alpha: f32,
}

/// A tile of C: what it is the sum of, over the terms of K that are summed at once, and what becomes of that.
#[derive(Clone, Copy)]
pub struct TileProduct<'a> {
    pub rows: usize,
    /// Elements of a row of A that are summed, which are pairs of terms where factors are packed so.
    pub k: usize,
    pub a: Left,
    pub b: Right,
    /// Columns.
    pub width: usize,
    pub epilogue: Epilogue,
    pub more: Option<&'a More>,
    // Of AMX alone.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub kept: Option<Kept>,
}

/// Sums that go on from part to part of K, whole tiles of them.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Kept {
    pub at: *mut f32,
    /// What lies there belongs to the sum.
    pub begun: bool,
    /// More parts come.
    pub goes_on: bool,
}

/// Where a term of A's rows lies. Every third row has a pointer of its own, from which an address reaches the next two by
/// the step and twice the step. By one pointer a compiler finds each row from the one before: an addition a row, one
/// after another, which takes longer than two multiply-adds a cycle. With that and `UNROLLED`, products of SmolLM2's
/// shapes went from 249 to 277 GFLOP/s by AVX-512, of which the pointers alone were about half, and from 166 to 185 by
/// AVX2, two cores of a Xeon (Granite Rapids).
#[derive(Clone, Copy)]
struct Rows {
    // Not an array, which is left in memory.
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

    /// On by so many elements.
    #[inline(always)]
    fn on(self, elements: usize) -> Rows {
        let on = |at: *const f32| opaque(at.wrapping_add(elements));
        Rows { at: on(self.at), at_3: on(self.at_3), at_6: on(self.at_6), at_9: on(self.at_9), ..self }
    }
}

/// The pointer, of which the compiler knows nothing any more, by no instruction: it would find one from another again.
#[inline(always)]
// The address passes, and what it points at is neither read nor written.
#[allow(clippy::pointers_in_nomem_asm_block)]
fn opaque(at: *const f32) -> *const f32 {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    let at = {
        let mut at = at;
        // SAFETY: nothing is done.
        unsafe { std::arch::asm!("/* {} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
        at
    };
    at
}

/// Whether the loops of a level's largest tiles go on with `Prefetch::packing`, where A's terms are neighbours: AVX2's do,
/// in assembly.
// Elsewhere than on x86-64 nothing is matched.
#[cfg_attr(any(not(target_arch = "x86_64"), miri), allow(clippy::match_single_binding))]
pub fn packs(level: Level) -> bool {
    match level {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        Level::Avx2 => true,
        _ => false,
    }
}

/// Sums a tile of `ROWS` rows, and asks for what comes `next` meanwhile.
///
/// # Safety
/// The processor has S's instructions; the operands reach over the tile's rows, terms and columns (`VECTORS` whole
/// vectors unless `MASKED`).
#[inline(always)]
pub unsafe fn tile<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    t: &TileProduct,
    next: &mut Prefetch,
) {
    // SAFETY: the caller's.
    unsafe {
        prefetch_sums::<S, ROWS, VECTORS>(&t.epilogue);
        let sums = match t.a.k {
            1 => sum::<S, ROWS, VECTORS, MASKED, UNROLLED>(t, next),
            _ => sum::<S, ROWS, VECTORS, MASKED, 1>(t, next),
        };
        epilogue::<S, ROWS, VECTORS, MASKED>(sums, t);
    }
}

/// The sums; `TERMS` terms, which are neighbours if there are several, to an addition to each of A's pointers. Most of them
/// in assembly for tiles of 6 × 2 vectors by AVX2 and 8 × 3 by AVX-512, where B is packed.
#[inline(always)]
unsafe fn sum<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool, const TERMS: usize>(
    t: &TileProduct,
    next: &mut Prefetch,
) -> [[S::V; VECTORS]; ROWS] {
    let &TileProduct { k, a, b, width, .. } = t;
    // SAFETY: the caller's.
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

/// Asks for where the sums will be written.
#[inline(always)]
pub fn prefetch_sums<S: Isa, const ROWS: usize, const VECTORS: usize>(s: &Epilogue) {
    for i in 0..ROWS {
        for j in 0..VECTORS {
            prefetch::to_write(s.c.wrapping_add(i * s.row + j * S::WIDTH).cast());
        }
    }
}

/// `width` neighbours, with zeros after the last where `MASKED`.
#[inline(always)]
unsafe fn columns<S: Isa, const VECTORS: usize, const MASKED: bool>(
    at: *const f32,
    width: usize,
) -> [S::V; VECTORS] {
    // SAFETY: the caller's; a last vector that is masked ends with `width`.
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

/// What becomes of a tile's sums.
///
/// # Safety
/// As `tile`.
#[inline(always)]
pub unsafe fn epilogue<S: Isa, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    mut sums: [[S::V; VECTORS]; ROWS],
    t: &TileProduct,
) {
    let &TileProduct { width, epilogue: s, more, .. } = t;
    // SAFETY: the caller's.
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

/// Adds an element of each row of A by a row of B to the sums; an f32, or what S's products take.
#[inline(always)]
unsafe fn add<S: Isa, const ROWS: usize, const VECTORS: usize, const EXACT: bool>(
    right: [S::V; VECTORS],
    a: Rows,
    term: usize,
    sums: &mut [[S::V; VECTORS]; ROWS],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let left = S::V::splat(*a.of(i).wrapping_add(term));
            for (sum, v) in sums.iter_mut().zip(right) {
                *sum = if EXACT { left.fma(v, *sum) } else { S::add(left, v, *sum) };
            }
        }
    }
}
