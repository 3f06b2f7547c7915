//! Products of bf16 by AMX: tiles of 16 × 16 sums, to which an instruction adds the product of 16 × 32 and 32 × 16 bf16.
//!
//! A's rows are rounded to pairs once for all tasks, 16 of them together: its registers lie whole, 16 rows of 32 terms,
//! one after another along k, so that what the processor asks for by itself is what comes next. A panel of B has its
//! pairs of 32 columns side by side, which are two registers of 16 pairs × 16 columns. Both are filled up with zeros to
//! whole registers along k; across it, where C has fewer rows or columns, what is computed beside them is not stored. So
//! one configuration serves a whole task.
//!
//! Cost, by count: a tile of 32 × 32 keeps four registers of sums, and loads four more for 32 terms: a product
//! for each load, of 16 loads of lines, and 16 operations for each byte that is loaded. One of up to 16 rows, or
//! of up to 16 columns, loads three for two products. Intel's manual on optimisation has a product begin each 16 cycles,
//! and a load, of two lines a cycle, each 8.
//!
//! K is summed in short parts, whose panel and rows stay in L1, and the sums go on from part to part in the
//! second, as whole tiles. Measured on a Xeon (Granite Rapids), tiles alone on 512 rows and 256 columns, GFLOP/s of a
//! core of 3500 in registers, the rows of A from L3:
//!
//! | terms of a part | sums dropped | kept | stored to rows 8 KiB apart |
//! |-----------------|--------------|------|----------------------------|
//! | 256             | 1850–2070    | 1650 | 1340                       |
//! | 512             | 1570–1740    | 1370 | 1220                       |
//! | 1024            | 1490–1710    | 1250 | 1180                       |
//!
//! Rows of C a power of two apart fall on the same sets of L1 and L2, and parts of 1024 that were added to C there, with
//! A rounded by each task, gave 1120 to 1250 GFLOP/s on two cores where this gives 1530 to 1640 (512 × 2048 × 2048,
//! 512 × 8192 × 2048, 512 × 2048 × 8192). A step of Llama 3.2 1B's shape takes 27% less. Tried: 16 panels a task
//! instead of up to 8, 1 to 10% slower; one tile of rows past a panel instead of 4, the same, 8, up to 6% slower; parts of
//! 192, 2 to 6% slower, of 640, 10 to 25%.
//!
//! What it computes (Intel's manual, TDPBF16PS): of 32 terms the products of even ones are summed one after another from
//! 0, those of odd ones too, by fused multiply-adds; the one sum is added to the other, and both to what was there. Each
//! step rounds to nearest even, takes subnormal numbers for 0 and gives 0 for them. So, as with pairs, the products of
//! bf16 are exact before they are summed in f32, and what is below 1.2e-38, factor, product or sum, counts for nothing;
//! a gradient so small is lost to AdamW's epsilon of 1e-8 in any case. Sums of 16 terms and of a 32nd of the terms are
//! shorter than one sum of all, and bounds of its rounding errors hold for them. How terms are grouped hangs on their
//! place in K alone, and where a sum begins anew on K (rounded.rs): zeros at the end change no sum.

use std::mem::MaybeUninit;

use half::bf16;

use super::microkernel::{self, Epilogue, Left, More, STRIDE, TileProduct};
use super::pack::Source;
use super::pairs;
use super::prefetch::{self, Prefetch};
use super::tiles::{Microkernel, Tiles};
use crate::simd::amx::sums::{self as amx, COLUMNS};
use crate::simd::amx::{BYTES, Configuration, ROWS, release};
use crate::simd::{Avx512, Isa, Lanes};

/// Terms of a register's row.
pub const TERMS: usize = BYTES / 2;
/// Most terms that are summed in registers at a time. SmolLM2's 576 are two parts of it.
pub const SUMMED: usize = 288;
/// Columns of a panel.
const PANEL: usize = 2 * COLUMNS;
/// Elements of a register.
const REGISTER: usize = ROWS * COLUMNS;
/// Elements between rows of sums in memory.
const ROW: usize = PANEL;

// What is asked for beside products is asked for as often as a tile takes terms.
const _: () = assert!(STRIDE == TERMS / 2);
const _: () = assert!(PANEL == 2 * Avx512::WIDTH);

/// As `pairs::right`, with zeros up to a multiple of `TERMS` rows.
///
/// # Safety
/// As `pairs::right`; `to` reaches over as many rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn right(b: Source<*const bf16>, k: usize, width: usize, panel: usize, to: *mut f32) {
    let (pairs, whole) = (k.div_ceil(2), k.next_multiple_of(TERMS) / 2);
    // SAFETY: the caller's.
    unsafe {
        pairs::right(b, k, width, panel, to);
        to.add(pairs * panel).write_bytes(0, (whole - pairs) * panel);
    }
}

/// Rounds `rows` rows of `k` terms to nearest even, as whole registers of 16 rows, one after another along k; `to_row`
/// elements lie between 16 rows and the next.
///
/// # Safety
/// As `pairs::left`; `to` reaches over whole registers.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn left(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    // SAFETY: the caller's.
    unsafe {
        for i in 0..rows {
            let to = to.add(i / ROWS * to_row + i % ROWS * COLUMNS);
            pairs::row(Left { at: a.at.add(i * a.row), ..a }, k, to, REGISTER);
        }
    }
}

/// The sums of a tile.
#[repr(align(64))]
struct Sums([MaybeUninit<f32>; 2 * ROWS * ROW]);

/// As `microkernel::tile`, of factors that `left` and `right` packed.
///
/// # Safety
/// As `microkernel::tile`. The thread has `Configuration::WHOLE`; `k` is a multiple of half of `TERMS`, and A
/// reaches over rows up to a multiple of `ROWS`, which may hold anything.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn tile<const TALL: bool, const VECTORS: usize, const MASKED: bool>(
    t: &TileProduct,
    ahead: &mut Prefetch,
) {
    let &TileProduct { rows, k, a, b, width, epilogue, kept, .. } = t;
    debug_assert!(rows <= if TALL { 2 * ROWS } else { ROWS } && width <= VECTORS * COLUMNS);
    debug_assert!(k.is_multiple_of(COLUMNS));
    let goes_on = kept.is_some_and(|kept| kept.goes_on);
    if !goes_on {
        for i in 0..rows {
            for j in 0..VECTORS {
                prefetch::to_write(epilogue.c.wrapping_add(i * epilogue.row + j * COLUMNS).cast());
            }
        }
    }
    let mut sums = Sums([MaybeUninit::uninit(); _]);
    // They have room for two registers in either direction, and so have those that are kept.
    let mut at: *mut f32 = sums.0.as_mut_ptr().cast();
    // SAFETY: the caller's.
    unsafe {
        match kept.filter(|kept| kept.begun) {
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
        if let Some(kept) = kept.filter(|kept| kept.goes_on) {
            at = kept.at;
        }
        match VECTORS {
            1 => amx::store::<TALL, false>(at, ROW),
            _ => amx::store::<TALL, true>(at, ROW),
        }
        if !goes_on {
            epilogue_all::<VECTORS, MASKED>(&sums, t);
        }
    }
}

/// As `microkernel::epilogue`, some rows at a time.
///
/// # Safety
/// As `microkernel::epilogue`; of the sums the rows and vectors hold something.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn epilogue_all<const VECTORS: usize, const MASKED: bool>(sums: &Sums, t: &TileProduct) {
    let (rows, mut row) = (t.rows, 0);
    // SAFETY: the caller's.
    unsafe {
        while rows - row >= 8 {
            epilogue_rows::<8, VECTORS, MASKED>(row, sums, t);
            row += 8;
        }
        if rows - row >= 4 {
            epilogue_rows::<4, VECTORS, MASKED>(row, sums, t);
            row += 4;
        }
        while rows > row {
            epilogue_rows::<1, VECTORS, MASKED>(row, sums, t);
            row += 1;
        }
    }
}

/// # Safety
/// As `epilogue_all`, of `COUNT` rows from `row` on.
#[inline(always)]
unsafe fn epilogue_rows<const COUNT: usize, const VECTORS: usize, const MASKED: bool>(
    row: usize,
    sums: &Sums,
    t: &TileProduct,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut lines = [[Avx512::zero(); VECTORS]; COUNT];
        for (i, line) in lines.iter_mut().enumerate() {
            for (j, v) in line.iter_mut().enumerate() {
                *v = Lanes::load(sums.0.as_ptr().add((row + i) * ROW + j * COLUMNS).cast());
            }
        }
        let more = t.more.map(|more| {
            let at = more.a.at.add(row * more.a.row);
            More { a: Left { at, ..more.a }, ..*more }
        });
        let epilogue = Epilogue { c: t.epilogue.c.add(row * t.epilogue.row), ..t.epilogue };
        let t = TileProduct { epilogue, more: more.as_ref(), ..*t };
        microkernel::epilogue::<Avx512, COUNT, VECTORS, MASKED>(lines, &t);
    }
}

/// # Safety
/// The process may use the instructions.
unsafe fn configure() {
    // SAFETY: the caller's; the configuration is of the palette's own sizes.
    unsafe { Configuration::WHOLE.load() };
}

/// The tiles by rows.
pub fn tiles() -> Tiles {
    let short: [Microkernel; 4] =
        [tile::<false, 1, false>, tile::<false, 1, true>, tile::<false, 2, false>, tile::<false, 2, true>];
    let tall: [Microkernel; 4] =
        [tile::<true, 1, false>, tile::<true, 1, true>, tile::<true, 2, false>, tile::<true, 2, true>];
    let forms = [[short; ROWS], [tall; ROWS]].concat();
    Tiles::new(&forms, ROWS, COLUMNS, Some([configure, release])).keeping(2 * ROWS * ROW)
}
