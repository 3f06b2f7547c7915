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
//! panels wide, 1085 ms.

use half::bf16;

use super::cut::Cut;
use super::dot::FEW;
use super::loops::Loops;
use super::microkernel::Left;
use super::panels::{Kit, Lay, at_once};
use super::product::Product;
use super::workspace::LINE;

/// Most terms that are summed in registers before they are added to C.
pub const PART: usize = 1024;
/// Elements of a thread's panels: a good half of a usual second cache.
const PANELS: usize = 144 * 1024;
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
        let kit = Kit {
            pack: rounded.right,
            tiles: &rounded.tiles,
            terms: rounded.terms,
            whole: rounded.whole,
            left: Some(Lay::Rows(rounded.left)),
            in_place: false,
        };
        let parts = self.k.div_ceil(rounded.part);
        // Whole squares of terms, as they are packed.
        let part = self.k.div_ceil(parts).next_multiple_of(2 * LINE);
        let sizes = [self.batch, self.m, self.n, self.k];
        if at_once(self.m, part / kit.terms)
            && let Some(cut) = Cut::once(kit.tiles, sizes, part, threads)
        {
            // SAFETY: the caller's; blocks have no element of C in common.
            return cut.run(|block| unsafe { self.task(loops, &block, kit) });
        }
        let panels = self.n.div_ceil(kit.tiles.panel());
        let mut most = (PANELS / (part / kit.terms) / kit.tiles.panel()).max(1);
        // As many tasks for every thread, if that leaves them wide.
        let tasks = panels.div_ceil(most).next_multiple_of(threads);
        if panels >= WIDE * tasks {
            most = panels.div_ceil(tasks);
        }
        // SAFETY: the caller's; blocks have no element of C in common.
        Cut::of_parts(kit.tiles, sizes, part, most, threads)
            .run(|block| unsafe { self.task(loops, &block, kit) });
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
