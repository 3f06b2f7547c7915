//! What a task does: it packs its columns of B, widened to f32 or paired up, panel by panel into a
//! workspace that stays in the second cache, a part of K at a time, and takes A's rows past them, a tile
//! of registers at a time.
//!
//! The first group of tiles of rows takes a panel as soon as it is packed, and the later ones find it
//! in the second cache. Meanwhile the next panel and the next group's rows are fetched from memory. Where tiles are of
//! three vectors, rows are left to the processor's own prefetching: A's, and B's, if it lies row-major, of which all panels
//! of a task are then packed at once.
//! Few rows are one group, whose tasks are wide and keep one panel. Sums of a part are added to C, or kept in the
//! workspace for the next part where the tiles do so.
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
use super::lay::{Lay, apart, copy};
use super::loops::{Loops, Pack, Stored};
use super::microkernel::{Kept, Left, More, Right, STRIDE, TileProduct};
use super::pack::{At, Source};
use super::prefetch::{Prefetch, Stretches};
use super::product::{Product, Second};
use super::tiles::Tiles;
use super::workspace::workspace;

/// Words of A's rows, as tiles read them, that the second cache holds beside a panel.
const ONCE: usize = 96 * 1024;
/// Tiles of rows that go past a panel before the next is packed, where sums are kept from part to part.
const GROUP: usize = 4;
/// Rows of B that are packed into all panels before the next ones are.
const ROWS: usize = 8;
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
    /// How A lies where it is not read in place.
    pub left: Option<Lay>,
    /// B is read where it lies.
    pub in_place: bool,
    /// The next group's rows are asked for while one is multiplied.
    pub rows_ahead: bool,
    /// All panels of a task are packed together, row by row, where B lies row-major and elements are of one term.
    pub row_by_row: bool,
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
        let width_in_panels = block.columns.div_ceil(panel);
        let sums_size =
            if block.part < self.k { slivers.len() * width_in_panels * kit.tiles.kept } else { 0 };
        let group = match once {
            true => slivers.len(),
            false if sums_size > 0 => GROUP,
            false => blocking().group,
        };
        let left_row = apart(elements(block.part));
        let left_size = match kit.left {
            None | Some(Lay::Packed(_)) => 0,
            Some(Lay::Rows | Lay::Columns) => group * kit.tiles.rows() * left_row,
        };
        let kept = if once { panel } else { block.columns.next_multiple_of(panel) };
        let second_size = kept * self.second.map_or(0, |s| s.k);
        // SAFETY: the caller's.
        let _ready = unsafe { kit.tiles.ready() };
        // SAFETY: the caller's; the workspace is cut as its parts are filled.
        workspace(sums_size + left_size + second_size + kept * elements(block.part), |space| unsafe {
            let (sums, space) = space.split_at_mut(sums_size);
            let sums = sums.as_mut_ptr();
            let (left, space) = space.split_at_mut(left_size);
            let (second_panels, panels) = space.split_at_mut(second_size);
            let (left, panels) = (left.as_mut_ptr(), panels.as_mut_ptr());
            let second_panels = second_panels.as_mut_ptr();
            let terms_from = |from: usize| block.part.min(self.k - from);
            let row_by_row = kit.row_by_row && self.b_row != 1 && !once && !kit.in_place;
            let packs = !row_by_row && !kit.in_place;
            // A panel's source, and its columns.
            let source = |from: usize, j: usize| {
                let start = block.z * self.b_batch + from * self.b_row + (block.column + j) * self.b_column;
                let source = Source { at: self.b.plus(start), row: self.b_row, column: self.b_column };
                (source, panel.min(block.columns - j))
            };
            for from in (0..self.k).step_by(block.part) {
                let terms = terms_from(from);
                let k = elements(terms);
                // The last part's tiles take the second segment.
                let second = self.second.filter(|_| from + terms == self.k);
                // A's rows before they are copied, and how many elements each has.
                let (left_rows, together, left_k) = match kit.left {
                    Some(Lay::Packed(packed)) => {
                        let rows = block.z * self.m.next_multiple_of(packed.together);
                        (packed.rows(rows, from / block.part), packed.together, k)
                    }
                    _ => (self.rows(block, 0, from), 1, terms),
                };
                let on = |a: Left, rows: usize| Left { at: a.at.wrapping_add(rows / together * a.row), ..a };
                if row_by_row {
                    for t in (0..terms).step_by(ROWS) {
                        for j in (0..block.columns).step_by(panel) {
                            let (here, width) = source(from + t, j);
                            (kit.pack)(
                                here,
                                ROWS.min(terms - t),
                                width,
                                panel,
                                panels.add(j * k + t * panel),
                            );
                        }
                    }
                }
                let mut groups = slivers.chunks(group).peekable();
                let (mut first, mut before) = (true, 0);
                while let Some(tiles) = groups.next() {
                    let (start, rows) = extent(tiles);
                    let mut a = on(left_rows, start);
                    match kit.left {
                        None | Some(Lay::Packed(_)) => {}
                        Some(Lay::Rows) => {
                            copy(a, rows, terms, left, left_row);
                            a = Left { at: left, row: left_row, k: 1 };
                        }
                        Some(Lay::Columns) => {
                            let from = Source { at: a.at, row: a.k, column: 1 };
                            (f32::loops(loops).pack)(from, terms, rows, rows, left);
                            a = Left { at: left, row: 1, k: rows };
                        }
                    }
                    let (start_after, rows_after) = groups.peek().map_or((start, 0), |tiles| extent(tiles));
                    let steps = tiles.len() * k.div_ceil(STRIDE);
                    let after = Stretches::rows(
                        on(left_rows, start_after),
                        rows_after.div_ceil(together),
                        left_k * together,
                    );
                    let mut ahead = Prefetch::nothing();
                    if kit.rows_ahead {
                        ahead.rows = after.over(block.columns.div_ceil(panel) * steps);
                    }
                    for j in (0..block.columns).step_by(panel) {
                        let (here, width) = source(from, j);
                        let place = if once { panels } else { panels.add(j * k) };
                        let right = match kit.in_place {
                            true => Right { at: here.at.address().cast(), k: self.b_row },
                            false => Right { at: place, k: panel },
                        };
                        if first && packs {
                            (kit.pack)(here, terms, width, panel, place);
                        }
                        // What is packed next, of this part or the next one.
                        let next = match j + panel < block.columns {
                            _ if row_by_row => None,
                            true => first.then_some((from, j + panel)),
                            false if groups.peek().is_none() => {
                                Some((from + terms, 0)).filter(|(from, _)| *from < self.k)
                            }
                            false => None,
                        };
                        ahead.panel = next.map_or(Stretches::nothing(), |(from, j)| {
                            let (there, columns) = source(from, j);
                            Stretches::panel(there, columns, terms_from(from)).over(steps)
                        });
                        let second = second.map(|s| {
                            let place = if once { second_panels } else { second_panels.add(j * s.k) };
                            if first {
                                s.pack(loops, [block.column + j, width], panel, place);
                            }
                            (s, place)
                        });
                        for (i, &(row, rows)) in tiles.iter().enumerate() {
                            let a = on(a, row - start);
                            let settle =
                                self.settlement(block, row, block.column + j, sums_size > 0 || from == 0);
                            let more = second.map(|(s, place)| s.rows_by(row, Right { at: place, k: panel }));
                            let more = more.as_ref();
                            let kept = (sums_size > 0).then(|| {
                                let tile = (before + i) * width_in_panels + j / panel;
                                Kept {
                                    at: sums.add(tile * kit.tiles.kept),
                                    begun: from > 0,
                                    goes_on: from + terms < self.k,
                                }
                            });
                            let t = TileProduct { rows, k, a, b: right, width, settle, more, kept };
                            kit.tiles.of(&t)(&t, &mut ahead);
                        }
                    }
                    first = false;
                    before += tiles.len();
                }
            }
        });
    }
}

impl Second {
    /// `width` columns from `column` on as a panel.
    unsafe fn pack(&self, loops: &Loops, [column, width]: [usize; 2], panel: usize, to: *mut f32) {
        // SAFETY: the caller's.
        let at = unsafe { self.b.add(column * self.b_column) };
        let source = Source { at, row: self.b_row, column: self.b_column };
        // SAFETY: the caller's.
        unsafe { (f32::loops(loops).pack)(source, self.k, width, panel, to) };
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
