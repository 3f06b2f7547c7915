//! Products by a bf16 weight whose other factor is rounded to bf16, summed in f32.
//!
//! Where the processor multiplies pairs of bf16, both factors are packed as pairs; where it doesn't,
//! they are rounded all the same and multiplied as f32, so that the setting means one rounding
//! everywhere. A task packs its columns of B, then rounds A's rows a tile's at a time into a buffer
//! that the first cache holds, and takes each past all of its panels. As elsewhere K alone decides how
//! an element of C is summed.

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
        let most = PANELS / (part / isa.rounded.terms) / isa.panel();
        let sizes = [self.batch, self.m, self.n, self.k];
        Cut::of_parts(isa, sizes, part, most.max(1), threads)
            .run(|block| unsafe { self.rounded(isa, block) });
    }

    unsafe fn rounded(&self, isa: &'static Isa, block: Block) {
        let (kit, panel) = (&isa.rounded, isa.panel());
        let elements = |terms: usize| terms.div_ceil(kit.terms);
        // A line more, or rows a power of two apart would fall on one another in the first cache.
        let left_row = elements(block.part).next_multiple_of(LINE) + LINE;
        let left_size = isa.rows * left_row;
        let right_size = block.columns.next_multiple_of(panel) * elements(block.part);
        workspace(left_size + right_size + LINE, |space| unsafe {
            let space = &mut space[..];
            let skip = space.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
            let (left, panels) = space[skip..].split_at_mut(left_size);
            let (left, panels) = (left.as_mut_ptr(), panels.as_mut_ptr());
            for from in (0..self.k).step_by(block.part) {
                let terms = block.part.min(self.k - from);
                let k = elements(terms);
                let b = self.b.add(block.z * self.b_batch + from * self.b_row + block.column * self.b_column);
                for j in (0..block.columns).step_by(panel) {
                    let source =
                        Source { at: b.add(j * self.b_column), row: self.b_row, column: self.b_column };
                    (kit.right)(source, terms, panel.min(block.columns - j), panel, panels.add(j * k));
                }
                let first = from == 0;
                block.slivers(isa, |row, rows| {
                    let a = self.rows(&block, row, from);
                    (kit.left)(a, rows, terms, left, left_row);
                    let a = Left { at: left, row: left_row, k: 1 };
                    for j in (0..block.columns).step_by(panel) {
                        let settle = self.settlement(&block, row, block.column + j, first);
                        let b = Right { at: panels.add(j * k), k: panel };
                        isa.rounded_tile(rows, k, a, b, panel.min(block.columns - j), settle);
                    }
                });
            }
        });
    }
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
