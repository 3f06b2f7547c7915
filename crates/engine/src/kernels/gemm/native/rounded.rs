//! Products by a bf16 weight whose other factor is rounded to bf16; sums are in f32.
//!
//! Where the processor multiplies pairs of bf16, both factors are packed as pairs, or as whole AMX tiles (amx.rs).
//! Otherwise, and where pairs were not measured to be faster (choice), factors are rounded all the same and multiplied
//! as f32, so that the precision setting means the same rounding everywhere. As elsewhere, K alone decides how an
//! element of C is summed.

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

/// Elements of a thread's panels: a little more than half of a usual L2.
const PANELS: usize = 144 * 1024;
/// Most terms of A that are rounded together, and for which sums are kept from block to block; K alone decides. The
/// usual widths of models are one or two segments.
const SEGMENT: usize = 4608;
/// Elements of packed A that are rounded together: 16 MiB, plus padding.
const ROUNDED: usize = 4 << 20;
/// Most panels, and tiles of rows, of a task that keeps its sums from block to block, unless all rows are one group:
/// 640 KiB of an L2 of 2 MiB.
const KEPT: usize = 10;
const KEPT_ROWS: usize = 512;
/// Panels from which a task spends little on packing and rounding.
const WIDE: usize = 8;

impl Product<bf16> {
    /// As for `run`, with A rounded to bf16. Few rows are not rounded: such products are bound by the bytes of B.
    ///
    /// # Safety
    /// As for `run`.
    pub unsafe fn run_rounded(&self, loops: &'static Loops, threads: usize) {
        if self.m <= FEW {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.run(loops, threads) };
        }
        if let Some((first, second)) = self.apart(false) {
            // SAFETY: guaranteed by the caller.
            return unsafe {
                first.run_rounded(loops, threads);
                second.run(loops, threads);
            };
        }
        let rounded = &loops.rounded;
        let parts = self.k.div_ceil(rounded.summed);
        // Whole squares of terms, which the packing transposes.
        let part = self.k.div_ceil(parts).next_multiple_of(2 * LINE);
        let segment = (SEGMENT / part).max(1) * part;
        let a_row = segment.min(self.k.next_multiple_of(part)) / rounded.terms;
        let most = (ROUNDED / a_row).max(1);
        if self.batch * self.m <= most {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.by_segments(loops, [part, segment], threads) };
        }
        let rows = self.m.div_ceil(self.m.div_ceil(most)).next_multiple_of(rounded.tiles.rows());
        for z in 0..self.batch {
            for row in (0..self.m).step_by(rows) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let some = self.of_rows(z, row, rows.min(self.m - row));
                    some.by_segments(loops, [part, segment], threads);
                }
            }
        }
    }

    /// The product with A rounded once for all tasks, one segment of K at a time.
    unsafe fn by_segments(&self, loops: &Loops, [part, segment]: [usize; 2], threads: usize) {
        let rounded = &loops.rounded;
        let together = rounded.tiles.step;
        let row = apart(together * part / rounded.terms);
        let size = self.batch * self.m.div_ceil(together) * row;
        shared(size * segment.min(self.k).div_ceil(part), |space| {
            let packed = Packed { at: space.as_mut_ptr(), together, row, part: size };
            for from in (0..self.k).step_by(segment) {
                let k = segment.min(self.k - from);
                // SAFETY: guaranteed by the caller.
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

    /// The product by rounded and packed rows.
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
            // SAFETY: guaranteed by the caller; no two blocks share an element of C.
            return cut.run(|block| unsafe { self.task(loops, &block, kit) });
        }
        let panels = self.n.div_ceil(kit.tiles.panel());
        let mut most = (PANELS / (part / kit.terms) / kit.tiles.panel()).max(1);
        if kit.tiles.kept > 0 && part < self.k {
            most = KEPT;
        }
        // The same number of tasks for each thread, if they stay wide.
        let tasks = panels.div_ceil(most).next_multiple_of(threads);
        if panels >= WIDE * tasks {
            most = panels.div_ceil(tasks);
        }
        let mut cut = Cut::of_parts(kit.tiles, sizes, part, most, threads);
        if kit.tiles.kept > 0 && part < self.k {
            cut = cut.of_rows(kit.tiles, KEPT_ROWS);
        }
        // SAFETY: guaranteed by the caller; no two blocks share an element of C.
        cut.run(|block| unsafe { self.task(loops, &block, kit) });
    }
}

/// Rounds `rows` rows of `k` terms to the nearest bf16, ties to even, and stores them as f32.
///
/// # Safety
/// `a` covers `rows` rows of `k` terms; `to` covers rows of `k` elements with leading dimension `to_row`.
#[inline(always)]
pub unsafe fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        for i in 0..rows {
            for t in 0..k {
                *to.add(i * to_row + t) = nearest(*a.at.add(i * a.row + t * a.k));
            }
        }
    }
}

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub fn nearest(v: f32) -> f32 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    if v.is_nan() { v } else { f32::from_bits(rounded) }
}
