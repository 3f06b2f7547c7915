//! Products by a bf16 weight whose other factor is rounded to bf16, summed in f32.
//!
//! Where the processor multiplies pairs of bf16, both factors are packed as pairs, which AMX takes by whole tiles
//! (amx.rs); where it doesn't, they are rounded all the same and multiplied as f32, so that the setting means one rounding
//! everywhere; and so it is where that is found to be as fast (choice). As elsewhere K alone decides how an element of C is summed.
//!
//! Versions, by a LoRA step of SmolLM2-135M's shape at 1 × 512 tokens on two cores (1750 ms in f32): rounding
//! a tile of rows at a time, 2 to 3 columns of tasks and as many of rows where that evens them out, 1125 ms, of
//! which tiles took 53% (at 95% of what the dot products peak at), packing 5% and rounding 3%; groups of 4
//! tiles, packing when the first comes, fetching ahead, and as many tasks for every thread where they stay 8
//! panels wide, 1085 ms. A rounded once for all tasks instead of by each, for its columns: 3% by AVX-512's pairs on a Xeon,
//! 2% in f32 by AVX2, and by AMX, whose products are short, 14% of a step of Llama 3.2 1B's shape went into it, and 3%
//! do now.

use half::bf16;

use super::blocking::blocking;
use super::cut::Cut;
use super::dot::FEW;
use super::lay::{Lay, Packed, apart};
use super::loops::Loops;
use super::microkernel::Left;
use super::panels::{Kit, at_once};
use super::product::Product;
use super::workspace::{LINE, shared};

/// Elements of a thread's panels: a good half of a usual L2.
const PANELS: usize = 144 * 1024;
/// Most terms of A that are rounded at a time, and of which sums are kept from part to part, as K alone decides: the usual
/// widths of models are one segment or two.
const SEGMENT: usize = 4608;
/// Elements of A, packed, that are rounded at a time: 16 MiB, and what pads them.
const ROUNDED: usize = 4 << 20;
/// Panels and rows of a task that keeps its sums from part to part, where rows are not taken at once: 640 KiB of an
/// L2 of 2 MiB.
const KEPT: usize = 10;
const KEPT_ROWS: usize = 512;
/// Panels from which a task packs and rounds little beside what it multiplies.
const WIDE: usize = 8;

impl Product<bf16> {
    /// As `run`, with A rounded to bf16. Few rows are taken as they are: such products wait for B's
    /// bytes, whatever A is.
    ///
    /// # Safety
    /// As `run`.
    pub unsafe fn run_rounded(&self, loops: &'static Loops, threads: usize) {
        if self.m <= FEW {
            // SAFETY: the caller's.
            return unsafe { self.run(loops, threads) };
        }
        if let Some((first, second)) = self.apart(false) {
            // SAFETY: the caller's.
            return unsafe {
                first.run_rounded(loops, threads);
                second.run(loops, threads);
            };
        }
        let rounded = &loops.rounded;
        let parts = self.k.div_ceil(rounded.summed);
        // Whole squares of terms, as they are packed.
        let part = self.k.div_ceil(parts).next_multiple_of(2 * LINE);
        let segment = (SEGMENT / part).max(1) * part;
        let a_row = segment.min(self.k.next_multiple_of(part)) / rounded.terms;
        let most = (ROUNDED / a_row).max(1);
        if self.batch * self.m <= most {
            // SAFETY: the caller's.
            return unsafe { self.by_segments(loops, [part, segment], threads) };
        }
        let rows = self.m.div_ceil(self.m.div_ceil(most)).next_multiple_of(rounded.tiles.rows());
        for z in 0..self.batch {
            for row in (0..self.m).step_by(rows) {
                // SAFETY: the caller's.
                unsafe {
                    let some = self.of_rows(z, row, rows.min(self.m - row));
                    some.by_segments(loops, [part, segment], threads);
                }
            }
        }
    }

    /// The product, of which A is rounded once for all tasks, a segment of K at a time.
    unsafe fn by_segments(&self, loops: &Loops, [part, segment]: [usize; 2], threads: usize) {
        let rounded = &loops.rounded;
        let together = rounded.tiles.step;
        let row = apart(together * part / rounded.terms);
        let size = self.batch * self.m.div_ceil(together) * row;
        shared(size * segment.min(self.k).div_ceil(part), |space| {
            let packed = Packed { at: space.as_mut_ptr(), together, row, part: size };
            for from in (0..self.k).step_by(segment) {
                let k = segment.min(self.k - from);
                // SAFETY: the caller's.
                unsafe {
                    let some = Product {
                        k,
                        a: self.a.add(from * self.a_column),
                        b: self.b.add(from * self.b_row),
                        accumulate: self.accumulate || from > 0,
                        bias: if from > 0 { std::ptr::null() } else { self.bias },
                        second: self.second.filter(|_| from + k == self.k),
                        ..*self
                    };
                    some.lay(rounded.left, packed, part, threads);
                    some.run_packed(loops, packed, part, threads);
                }
            }
        });
    }

    /// The product by rows that are rounded.
    unsafe fn run_packed(&self, loops: &Loops, packed: Packed, part: usize, threads: usize) {
        let rounded = &loops.rounded;
        let kit = Kit {
            pack: rounded.right,
            tiles: &rounded.tiles,
            terms: rounded.terms,
            whole: rounded.whole,
            left: Some(Lay::Packed(packed)),
            in_place: false,
            group: blocking().group,
            summed: part,
        };
        let sizes = [self.batch, self.m, self.n, self.k];
        if at_once(self.m, part / kit.terms)
            && let Some(cut) = Cut::once(kit.tiles, sizes, part, threads)
        {
            // SAFETY: the caller's; blocks have no element of C in common.
            return cut.run(|block| unsafe { self.task(loops, &block, kit) });
        }
        let panels = self.n.div_ceil(kit.tiles.panel());
        let mut most = (PANELS / (part / kit.terms) / kit.tiles.panel()).max(1);
        if kit.tiles.kept > 0 && part < self.k {
            most = KEPT;
        }
        // As many tasks for every thread, if that leaves them wide.
        let tasks = panels.div_ceil(most).next_multiple_of(threads);
        if panels >= WIDE * tasks {
            most = panels.div_ceil(tasks);
        }
        let mut cut = Cut::of_parts(kit.tiles, sizes, part, most, threads);
        if kit.tiles.kept > 0 && part < self.k {
            cut = cut.of_rows(kit.tiles, KEPT_ROWS);
        }
        // SAFETY: the caller's; blocks have no element of C in common.
        cut.run(|block| unsafe { self.task(loops, &block, kit) });
    }
}

/// Rounds `rows` rows of `k` terms to the nearest bf16, ties to even, and leaves them f32.
///
/// # Safety
/// `a` reaches over the rows and terms, `to` over rows of `k`, `to_row` elements apart.
#[inline(always)]
pub unsafe fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    // SAFETY: the caller's.
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
pub fn nearest(v: f32) -> f32 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if v.is_nan() { v } else { f32::from_bits(rounded) }
}
