//! What a task does: it packs its columns of B, widened to f32 or paired up, panel by panel into a
//! workspace that stays in the second cache, a part of K at a time, and takes A's rows past them, a tile
//! of registers at a time.
//!
//! The first group of tiles of rows takes a panel as soon as it is packed, and the later ones find it
//! in the second cache. Meanwhile the next panel and the next group's rows are fetched from memory.
//! Few rows are one group, whose tasks are wide and keep one panel.
//!
//! Products of prompts, x·Wᵀ by the seven weights of SmolLM2's 30 layers, which no cache holds, GFLOP/s
//! on two cores. Before: panels of a task packed in a row, or, rounded, fetched ahead a tile at a time.
//!
//! | rows | f32, before | here | bf16, rounded, before | here |
//! |------|-------------|------|-----------------------|------|
//! | 16   | 111         | 146  | 154                   | 268  |
//! | 32   | 150         | 187  | 235                   | 325  |
//! | 64   | 173         | 198  | 297                   | 340  |
//! | 96   | 191         | 207  | 330                   | 395  |
//!
//! From a cache the same products of 64 rows run at 208 and 382: what is left is mostly each task's first
//! panel, for which everybody waits.

use super::blocking::blocking;
use super::cut::Block;
use super::loops::{Loops, Pack, Round, Stored};
use super::microkernel::{Left, More, Right, STRIDE, TileProduct};
use super::pack::{At, Source};
use super::prefetch::{Prefetch, Stretches};
use super::product::{Product, Second};
use super::tiles::Tiles;
use super::workspace::{LINE, workspace};

/// Words of A's rows, as tiles read them, that the second cache holds beside a panel.
const ONCE: usize = 96 * 1024;
/// Rows above which tasks are of some of them, however few words they take.
const MOST: usize = 256;

/// The loops of a task's product.
#[derive(Clone, Copy)]
pub struct Kit<'a, P> {
    pub pack: Pack<P>,
    pub tiles: &'a Tiles,
    /// Terms in an element of a packed factor.
    pub terms: usize,
    /// Terms that tiles take at once.
    pub whole: usize,
    /// How A is laid apart where it is not read in place.
    pub left: Option<Lay>,
    /// B is read where it lies.
    pub in_place: bool,
}

/// How a group's rows of A are copied.
#[derive(Clone, Copy)]
pub enum Lay {
    /// Row by row, a line more than their length apart.
    Rows(Round),
    /// Term by term, where A's columns lie along its rows: the elements of all rows side by side. Read in place, each
    /// term is a line of its own, and those of a width that is a power of two push one another out of the first cache:
    /// 512 × 128 × 1024 by Aᵀ took 803 µs, not 640, on two cores of a Xeon with AVX-512.
    Columns,
}

impl Lay {
    /// # Safety
    /// `a` reaches over the rows and terms, `to` over what they take.
    unsafe fn lay(
        self,
        loops: &Loops,
        a: Left,
        rows: usize,
        terms: usize,
        to: *mut f32,
        to_row: usize,
    ) -> Left {
        match self {
            Lay::Rows(lay) => {
                // SAFETY: the caller's.
                unsafe { lay(a, rows, terms, to, to_row) };
                Left { at: to, row: to_row, k: 1 }
            }
            Lay::Columns => {
                let from = Source { at: a.at, row: a.k, column: 1 };
                // SAFETY: the caller's.
                unsafe { (f32::loops(loops).pack)(from, terms, rows, rows, to) };
                Left { at: to, row: 1, k: rows }
            }
        }
    }
}

impl<T: Stored> Product<T> {
    /// # Safety
    /// As `run`.
    pub unsafe fn task(&self, loops: &Loops, block: &Block, kit: Kit<'_, T::At>) {
        let panel = kit.tiles.panel();
        let elements = |terms: usize| terms.next_multiple_of(kit.whole) / kit.terms;
        let mut slivers = Vec::new();
        block.slivers(kit.tiles, |row, rows| slivers.push((row, rows)));
        let once = at_once(block.rows, elements(block.part));
        let group = if once { slivers.len() } else { blocking().group };
        // A line more, or rows a power of two apart would fall on one another in the first cache.
        let left_row = elements(block.part).next_multiple_of(LINE) + LINE;
        let left_size = if kit.left.is_some() { group * kit.tiles.rows() * left_row } else { 0 };
        let kept = if once { panel } else { block.columns.next_multiple_of(panel) };
        let second_size = kept * self.second.map_or(0, |s| s.k);
        // SAFETY: the caller's.
        let _ready = unsafe { kit.tiles.ready() };
        // SAFETY: the caller's; the workspace is cut as its parts are filled.
        workspace(left_size + second_size + kept * elements(block.part), |space| unsafe {
            let (left, space) = space.split_at_mut(left_size);
            let (second_panels, panels) = space.split_at_mut(second_size);
            let (left, panels) = (left.as_mut_ptr(), panels.as_mut_ptr());
            let second_panels = second_panels.as_mut_ptr();
            for from in (0..self.k).step_by(block.part) {
                let terms = block.part.min(self.k - from);
                let k = elements(terms);
                let b =
                    self.b.plus(block.z * self.b_batch + from * self.b_row + block.column * self.b_column);
                // A panel's source, and its columns.
                let source = |j: usize| {
                    let at = b.plus(j * self.b_column);
                    let width = panel.min(block.columns.saturating_sub(j));
                    (Source { at, row: self.b_row, column: self.b_column }, width)
                };
                // The last part's tiles take the second segment.
                let second = self.second.filter(|_| from + terms == self.k);
                let mut groups = slivers.chunks(group).peekable();
                let mut first = true;
                while let Some(tiles) = groups.next() {
                    let (start, rows) = extent(tiles);
                    let mut a = self.rows(block, start, from);
                    if let Some(how) = kit.left {
                        a = how.lay(loops, a, rows, terms, left, left_row);
                    }
                    let (start_after, rows_after) = groups.peek().map_or((start, 0), |tiles| extent(tiles));
                    let steps = tiles.len() * k.div_ceil(STRIDE);
                    let after = Stretches::rows(self.rows(block, start_after, from), rows_after, terms);
                    let mut ahead = Prefetch::nothing();
                    ahead.rows = after.over(block.columns.div_ceil(panel) * steps);
                    for j in (0..block.columns).step_by(panel) {
                        let (here, width) = source(j);
                        let place = if once { panels } else { panels.add(j * k) };
                        let right = match kit.in_place {
                            true => Right { at: here.at.address().cast(), k: self.b_row },
                            false => Right { at: place, k: panel },
                        };
                        if first {
                            if !kit.in_place {
                                (kit.pack)(here, terms, width, panel, place);
                            }
                            let (there, columns) = source(j + panel);
                            ahead.panel = Stretches::panel(there, columns, terms).over(steps);
                        }
                        let second = second.map(|s| {
                            let place = if once { second_panels } else { second_panels.add(j * s.k) };
                            if first {
                                s.pack(loops, block.column + j, width, place);
                            }
                            (s, place)
                        });
                        for &(row, rows) in tiles {
                            let a = Left { at: a.at.add((row - start) * a.row), ..a };
                            let settle = self.settlement(block, row, block.column + j, from == 0);
                            let more = second.map(|(s, place)| s.rows_by(row, Right { at: place, k: panel }));
                            let more = more.as_ref();
                            let t = TileProduct { rows, k, a, b: right, width, settle, more };
                            kit.tiles.of(&t)(&t, &mut ahead);
                        }
                    }
                    first = false;
                }
            }
        });
    }
}

impl Second {
    /// Columns from `column` on as a panel.
    unsafe fn pack(&self, loops: &Loops, column: usize, width: usize, to: *mut f32) {
        // SAFETY: the caller's.
        let at = unsafe { self.b.add(column * self.b_column) };
        let source = Source { at, row: self.b_row, column: self.b_column };
        // SAFETY: the caller's.
        unsafe { (f32::loops(loops).pack)(source, self.k, width, loops.panel(), to) };
    }

    /// A from `row` on by a panel.
    unsafe fn rows_by(&self, row: usize, b: Right) -> More {
        // SAFETY: the caller's.
        let at = unsafe { self.a.add(row * self.a_row) };
        More { k: self.k, a: Left { at, row: self.a_row, k: self.a_column }, b, alpha: self.alpha }
    }
}

/// Whether so many rows, of so many words, are one group, and a panel is done with when the next is packed. Until it was
/// asked what they take, and not how many tiles they are, 64 and 86 rows ran 7% slower by AVX2, whose tiles are of 6, and
/// 128 by AVX-512 4%.
pub fn at_once(rows: usize, words: usize) -> bool {
    rows <= MOST && rows * words <= ONCE
}

/// The first row and the rows of some tiles.
fn extent(tiles: &[(usize, usize)]) -> (usize, usize) {
    (tiles[0].0, tiles.iter().map(|(_, rows)| rows).sum())
}
