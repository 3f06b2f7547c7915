//! Products by a bf16 weight whose other factor is rounded to bf16, summed in f32.
//!
//! Where the processor multiplies pairs of bf16, both factors are packed as pairs; where it doesn't,
//! they are rounded all the same and multiplied as f32, so that the setting means one rounding
//! everywhere. A task goes through A's rows a group of tiles at a time: it rounds the group, and takes
//! it past each of its panels of B, which it packs when the first group comes to it. Meanwhile what
//! comes next is fetched into the second cache. As elsewhere K alone decides how an element of C is
//! summed.

//! Versions, by a LoRA step of SmolLM2-135M's shape at 1 × 512 tokens on two cores (1750 ms in f32): rounding
//! a tile of rows at a time, 2 to 3 columns of tasks and as many of rows where that evens them out, 1125 ms, of
//! which tiles took 53% (at 95% of what the dot products peak at), packing 5% and rounding 3%; groups of 4
//! tiles, packing when the first comes, fetching ahead, and as many tasks for every thread where they stay 8
//! panels wide, 1085 ms.

use half::bf16;

use super::dot::FEW;
use super::isa::Isa;
use super::pack::Source;
use super::product::{Block, Cut, Product, workspace};
use super::tile::{Left, Right};

/// Most terms that are summed in registers before they are added to C.
const PART: usize = 1024;
/// Elements of a thread's panels: a good half of a usual second cache.
const PANELS: usize = 144 * 1024;
/// Elements of a cache line.
const LINE: usize = 16;
/// Tiles of rows that are rounded together.
const GROUP: usize = 4;
/// Panels from which a task packs and rounds little beside what it multiplies.
const WIDE: usize = 8;

impl Product<bf16> {
    /// As `run`, with A rounded to bf16. Few rows are taken as they are: such products wait for B's
    /// bytes, whatever A is.
    ///
    /// # Safety
    /// As `run`.
    pub unsafe fn run_rounded(&self, isa: &'static Isa, threads: usize) {
        if self.m <= FEW {
            return unsafe { self.run(isa, threads) };
        }
        let parts = self.k.div_ceil(PART);
        // Whole squares of terms, as they are packed.
        let part = self.k.div_ceil(parts).next_multiple_of(2 * LINE);
        let panels = self.n.div_ceil(isa.panel());
        let mut most = (PANELS / (part / isa.rounded.terms) / isa.panel()).max(1);
        // As many tasks for every thread, if that leaves them wide.
        let tasks = panels.div_ceil(most).next_multiple_of(threads);
        if panels >= WIDE * tasks {
            most = panels.div_ceil(tasks);
        }
        let sizes = [self.batch, self.m, self.n, self.k];
        Cut::of_parts(isa, sizes, part, most, threads).run(|block| unsafe { self.rounded(isa, block) });
    }

    unsafe fn rounded(&self, isa: &'static Isa, block: Block) {
        let (kit, panel) = (&isa.rounded, isa.panel());
        let elements = |terms: usize| terms.div_ceil(kit.terms);
        // A line more, or rows a power of two apart would fall on one another in the first cache.
        let left_row = elements(block.part).next_multiple_of(LINE) + LINE;
        let left_size = GROUP * isa.rows * left_row;
        let right_size = block.columns.next_multiple_of(panel) * elements(block.part);
        let mut slivers = Vec::new();
        block.slivers(isa, |row, rows| slivers.push((row, rows)));
        workspace(left_size + right_size, |space| unsafe {
            let (left, panels) = space.split_at_mut(left_size);
            let (left, panels) = (left.as_mut_ptr(), panels.as_mut_ptr());
            for from in (0..self.k).step_by(block.part) {
                let terms = block.part.min(self.k - from);
                let k = elements(terms);
                let b = self.b.add(block.z * self.b_batch + from * self.b_row + block.column * self.b_column);
                // A panel's source, and its columns.
                let source = |j: usize| {
                    let at = b.wrapping_add(j * self.b_column);
                    let width = panel.min(block.columns.saturating_sub(j));
                    (Source { at, row: self.b_row, column: self.b_column }, width)
                };
                for (g, group) in slivers.chunks(GROUP).enumerate() {
                    let rows: usize = group.iter().map(|(_, rows)| rows).sum();
                    (kit.left)(self.rows(&block, group[0].0, from), rows, terms, left, left_row);
                    let next = slivers.chunks(GROUP).nth(g + 1).unwrap_or(&[]);
                    let next_rows = Ahead::rows(
                        self.rows(&block, next.first().map_or(0, |(row, _)| *row), from),
                        next.iter().map(|(_, rows)| rows).sum(),
                        terms,
                    );
                    let steps = block.columns.div_ceil(panel) * group.len();
                    for (p, j) in (0..block.columns).step_by(panel).enumerate() {
                        let (here, width) = source(j);
                        let (after, columns) = source(j + panel);
                        let next_panel = Ahead::panel(after, columns, terms);
                        if g == 0 {
                            (kit.right)(here, terms, width, panel, panels.add(j * k));
                        }
                        for (s, &(row, rows)) in group.iter().enumerate() {
                            next_rows.fetch(p * group.len() + s, steps);
                            if g == 0 {
                                next_panel.fetch(s, group.len());
                            }
                            let at = left.add((row - group[0].0) * left_row);
                            let a = Left { at, row: left_row, k: 1 };
                            let b = Right { at: panels.add(j * k), k: panel };
                            let settle = self.settlement(&block, row, block.column + j, from == 0);
                            isa.rounded_tile(rows, k, a, b, width, settle);
                        }
                    }
                }
            }
        });
    }
}

/// What will be read: `count` stretches of `bytes`, `step` bytes from one to the next.
struct Ahead {
    at: *const u8,
    step: usize,
    count: usize,
    bytes: usize,
}

impl Ahead {
    fn rows(a: Left, rows: usize, terms: usize) -> Ahead {
        Ahead { at: a.at.cast(), step: 4 * a.row, count: rows, bytes: 4 * terms }
    }

    fn panel(b: Source<bf16>, columns: usize, terms: usize) -> Ahead {
        let at = b.at.cast();
        match b.row {
            1 => Ahead { at, step: 2 * b.column, count: columns, bytes: 2 * terms },
            _ if columns > 0 => Ahead { at, step: 2 * b.row, count: terms, bytes: 2 * columns },
            _ => Ahead { at, step: 0, count: 0, bytes: 0 },
        }
    }

    /// Asks for the part `i` of `of`.
    #[inline(always)]
    fn fetch(&self, i: usize, of: usize) {
        for stretch in self.count * i / of..self.count * (i + 1) / of {
            for byte in (0..self.bytes).step_by(64) {
                prefetch(self.at.wrapping_add(stretch * self.step + byte));
            }
        }
    }
}

/// Asks for a line for the second cache, where the processor can be asked; any address will do.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Rounds `rows` rows of `k` terms to the nearest bf16, ties to even, and leaves them f32.
///
/// # Safety
/// `a` reaches over the rows and terms, `to` over rows of `k`, `to_row` elements apart.
#[inline(always)]
pub unsafe fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    unsafe {
        for i in 0..rows {
            for t in 0..k {
                *to.add(i * to_row + t) = nearest(*a.at.add(i * a.row + t * a.k));
            }
        }
    }
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn nearest(v: f32) -> f32 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if v.is_nan() { v } else { f32::from_bits(rounded) }
}
