//! Products of bf16 by AMX: tiles of 16 × 16 sums; one instruction adds the product of 16 × 32 and 32 × 16 bf16.
//!
//! Rows of A are rounded to pairs once for all tasks, in groups of 16: registers of 16 rows × 32 terms are contiguous
//! along k, so that the hardware prefetcher fetches the next one. A panel of B has the pairs of 32 columns, which are
//! two registers of 16 pairs × 16 columns. Both are padded with zeros to whole registers along k. Where C has fewer
//! rows or columns than a tile, the excess sums are not stored, so one tile configuration serves a whole task.
//!
//! A tile of 32 × 32 keeps four registers of sums and loads four registers for 32 terms, one per product. A tile of at
//! most 16 rows or columns loads three registers for two products. Per Intel's optimization manual, a product starts
//! every 16 cycles and a register load takes 8.
//!
//! K is summed in short blocks, whose panel and rows stay in L1; sums are kept from block to block in L2, as whole
//! tiles, since rows of C with a stride of a power of two would alias in L1 and L2.
//!
//! Semantics (Intel's manual, TDPBF16PS): of 32 terms, fused multiply-adds sum the products of even terms in ascending
//! order from 0, and likewise the products of odd terms. The two sums are added, and the result to the accumulator.
//! Each step rounds to nearest even and flushes subnormals. So the products of bf16 are exact before they are summed in
//! f32, and values below 1.2e-38 count as 0; a gradient that small vanishes in AdamW's epsilon of 1e-8 in any case. The
//! grouping of terms depends on their position in K only, and padding with zeros changes no sum.

use std::mem::MaybeUninit;

use half::bf16;

use super::prefetch::Prefetch;
use super::row_pointers::STRIDE;
use super::tiles::{Microkernel, Tiles};
use crate::gemm::arguments::{Epilogue, Left, SecondTile, Source, TileProduct};
use crate::gemm::cache_line;
use crate::gemm::microkernel;
use crate::gemm::pack::pairs;
use crate::simd::amx::sums::{self as amx, COLUMNS};
use crate::simd::amx::{BYTES, Configuration, ROWS, release};
use crate::simd::{Avx512, Isa, Lanes};

/// Terms per row of a register.
pub const TERMS: usize = BYTES / 2;
/// Most terms that are summed in registers. SmolLM2's 576 are two blocks.
pub const MAX_REGISTER_KC: usize = 288;
/// Columns per panel.
const PANEL: usize = 2 * COLUMNS;
/// Elements per register.
const REGISTER: usize = ROWS * COLUMNS;
/// Leading dimension of sums in memory.
const ROW: usize = PANEL;

// A tile prefetches once per register of terms.
const _: () = assert!(STRIDE == TERMS / 2);
const _: () = assert!(PANEL == 2 * Avx512::WIDTH);

/// As for `pairs::pack_b`, padded with zeros to a multiple of `TERMS` rows.
///
/// # Safety
/// As for `pairs::pack_b`; `to` covers the padded rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_b(b: Source<*const bf16>, k: usize, width: usize, panel: usize, to: *mut f32) {
    let (pairs, whole) = (k.div_ceil(2), k.next_multiple_of(TERMS) / 2);
    // SAFETY: guaranteed by the caller.
    unsafe {
        pairs::pack_b(b, k, width, panel, to);
        to.add(pairs * panel).write_bytes(0, (whole - pairs) * panel);
    }
}

/// Rounds `rows` rows of `k` terms to nearest even, as whole registers of 16 rows, contiguous along k; groups of 16
/// rows have a stride of `to_row` elements.
///
/// # Safety
/// As for `pairs::pack_a`; `to` covers whole registers.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn pack_a(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for i in 0..rows {
            let to = to.add(i / ROWS * to_row + i % ROWS * COLUMNS);
            pairs::round_row(Left { at: a.at.add(i * a.row), ..a }, k, to, REGISTER);
        }
    }
}

/// The sums of a tile.
#[repr(align(64))]
struct Sums([MaybeUninit<f32>; 2 * ROWS * ROW]);

/// As for `microkernel::compute_tile`, for factors packed by `pack_a` and `pack_b`.
///
/// # Safety
/// As for `microkernel::compute_tile`. The thread has loaded `Configuration::WHOLE`; `k` is a multiple of half of
/// `TERMS`; A covers rows up to a multiple of `ROWS`, and its padding rows may have any content.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn compute_tile<const TALL: bool, const VECTORS: usize, const MASKED: bool>(
    t: &TileProduct,
    ahead: &mut Prefetch,
) {
    let &TileProduct { rows, k, a, b, width, epilogue, kept, .. } = t;
    debug_assert!(rows <= if TALL { 2 * ROWS } else { ROWS } && width <= VECTORS * COLUMNS);
    debug_assert!(k.is_multiple_of(COLUMNS));
    let continues = kept.is_some_and(|kept| kept.continues);
    if !continues {
        for i in 0..rows {
            for j in 0..VECTORS {
                cache_line::prefetch_for_write(
                    epilogue.c.wrapping_add(i * epilogue.row + j * COLUMNS).cast(),
                );
            }
        }
    }
    let mut sums = Sums([MaybeUninit::uninit(); _]);
    // Both buffers have room for two registers in each direction.
    let mut at: *mut f32 = sums.0.as_mut_ptr().cast();
    // SAFETY: guaranteed by the caller.
    unsafe {
        match kept.filter(|kept| kept.resumed) {
            Some(kept) if VECTORS == 1 => amx::load::<TALL, false>(kept.at, ROW),
            Some(kept) => amx::load::<TALL, true>(kept.at, ROW),
            None => amx::zero(),
        }
        for from in (0..k).step_by(COLUMNS) {
            ahead.fetch(1);
            let (a_at, b_at) = (a.at.add(from * ROWS), b.at.add(from * b.k));
            match VECTORS {
                1 => amx::add::<TALL, false>(a_at, a.row, COLUMNS, b_at, b.k),
                _ => amx::add::<TALL, true>(a_at, a.row, COLUMNS, b_at, b.k),
            }
        }
        if let Some(kept) = kept.filter(|kept| kept.continues) {
            at = kept.at;
        }
        match VECTORS {
            1 => amx::store::<TALL, false>(at, ROW),
            _ => amx::store::<TALL, true>(at, ROW),
        }
        if !continues {
            apply_epilogue_to_tile::<VECTORS, MASKED>(&sums, t);
        }
    }
}

/// As for `microkernel::apply_epilogue`, in groups of rows.
///
/// # Safety
/// As for `microkernel::apply_epilogue`; the tile's rows and vectors of `sums` are initialised.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn apply_epilogue_to_tile<const VECTORS: usize, const MASKED: bool>(sums: &Sums, t: &TileProduct) {
    let (rows, mut row) = (t.rows, 0);
    // SAFETY: guaranteed by the caller.
    unsafe {
        while rows - row >= 8 {
            apply_epilogue_to_rows::<8, VECTORS, MASKED>(row, sums, t);
            row += 8;
        }
        if rows - row >= 4 {
            apply_epilogue_to_rows::<4, VECTORS, MASKED>(row, sums, t);
            row += 4;
        }
        while rows > row {
            apply_epilogue_to_rows::<1, VECTORS, MASKED>(row, sums, t);
            row += 1;
        }
    }
}

/// The epilogue of `COUNT` rows from `row` on.
///
/// # Safety
/// As for `apply_epilogue_to_tile`.
#[inline(always)]
unsafe fn apply_epilogue_to_rows<const COUNT: usize, const VECTORS: usize, const MASKED: bool>(
    row: usize,
    sums: &Sums,
    t: &TileProduct,
) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut lines = [[Avx512::zero(); VECTORS]; COUNT];
        for (i, line) in lines.iter_mut().enumerate() {
            for (j, v) in line.iter_mut().enumerate() {
                *v = Lanes::load(sums.0.as_ptr().add((row + i) * ROW + j * COLUMNS).cast());
            }
        }
        let second = t.second.map(|second| {
            let at = second.a.at.add(row * second.a.row);
            SecondTile { a: Left { at, ..second.a }, ..*second }
        });
        let epilogue = Epilogue { c: t.epilogue.c.add(row * t.epilogue.row), ..t.epilogue };
        let t = TileProduct { epilogue, second: second.as_ref(), ..*t };
        microkernel::apply_epilogue::<Avx512, COUNT, VECTORS, MASKED>(lines, &t);
    }
}

/// Configures the tile registers of the current thread.
///
/// # Safety
/// The process may use AMX.
unsafe fn configure() {
    // SAFETY: guaranteed by the caller; the configuration has the sizes of the palette.
    unsafe { Configuration::WHOLE.load() };
}

/// The microkernels by rows.
pub fn make_tiles() -> Tiles {
    let short: [Microkernel; 4] = [
        compute_tile::<false, 1, false>,
        compute_tile::<false, 1, true>,
        compute_tile::<false, 2, false>,
        compute_tile::<false, 2, true>,
    ];
    let tall: [Microkernel; 4] = [
        compute_tile::<true, 1, false>,
        compute_tile::<true, 1, true>,
        compute_tile::<true, 2, false>,
        compute_tile::<true, 2, true>,
    ];
    let variants = [[short; ROWS], [tall; ROWS]].concat();
    Tiles::new(&variants, ROWS, COLUMNS, Some([configure, release])).with_kept_sums(2 * ROWS * ROW)
}
