//! One task of the GEMM: packs its columns of B into panels that stay in L2, one block of K at a time, and multiplies
//! groups of A's rows by each panel, one register tile at a time.
//!
//! The first group of tiles uses a panel right after it was packed; later groups find it in L2. Meanwhile the next
//! panel and the next group's rows are prefetched. A row-major B is prefetched in runs of panels, whose columns share
//! cache lines. On AVX2, a run of f32 panels is also packed during the products of the run before.
//!
//! Tiles of three vectors leave rows to the hardware prefetcher: the rows of A, unless they are copied, and the rows of
//! a row-major B, since all its panels of a task are packed at once.
//!
//! Few rows form one group, whose tasks are wide and keep a single panel. A block of K has as many terms as are summed
//! in registers or, for tiles of three vectors, a multiple (`terms::deep_part`). Sums are added to C, or kept in the
//! workspace until the next block where the tiles support it.

mod ahead;

use super::cut::Block;
use super::lay::{Lay, apart, copy};
use super::loops::{Loops, Pack, Stored};
use super::microkernel::{Kept, Left, More, Right, STRIDE, TileProduct};
use super::pack::{At, Source};
use super::prefetch::{Prefetch, Stretches};
use super::product::{Product, Second};
use super::tiles::Tiles;
use super::workspace::workspace;

/// Elements of packed A that L2 holds in addition to a panel.
const ONCE: usize = 96 * 1024;
/// Tiles of rows per group when sums are kept from block to block of K.
const GROUP: usize = 4;
/// Rows of B that are packed into all panels before the next rows.
const B_ROWS: usize = 8;
/// Most rows of a task that are handled as one group, whatever their size.
const MOST: usize = 256;

/// The configuration of a task: its kernels and the layouts of its factors.
#[derive(Clone, Copy)]
pub struct Kit<'a, P> {
    pub pack: Pack<P>,
    pub tiles: &'a Tiles,
    /// Terms per element of a packed factor (2 for pairs of bf16).
    pub terms: usize,
    /// Terms per step of a tile; packed factors are padded to a multiple.
    pub whole: usize,
    /// The layout of A; `None` reads A in place.
    pub left: Option<Lay>,
    /// Whether B is read in place.
    pub in_place: bool,
    /// Tiles of rows per group: they use a panel before the next panel is packed.
    pub group: usize,
    /// Terms that are summed in registers before they are added to C; a block of K has a multiple of them.
    pub summed: usize,
}

impl<P> Kit<'_, P> {
    /// Elements of a packed factor that hold `terms` terms.
    fn elements(&self, terms: usize) -> usize {
        terms.next_multiple_of(self.whole) / self.terms
    }
}

/// A running task.
struct Task<'a, T: Stored> {
    product: &'a Product<T>,
    loops: &'a Loops,
    block: &'a Block,
    kit: Kit<'a, T::At>,
    /// The first row and the number of rows of each tile.
    slivers: &'a [(usize, usize)],
    /// Tiles of rows per group.
    group_tiles: usize,
    /// Whether all rows are one group, so that one panel buffer is enough.
    once: bool,
    space: Space,
}

/// The buffers in a task's workspace.
struct Space {
    /// Sums that are kept from block to block of K, as whole tiles; null if none are.
    sums: *mut f32,
    /// The copy of a group's rows of A.
    left: *mut f32,
    /// Leading dimension of a row-major copy.
    left_row: usize,
    /// Panels of the second segment's B.
    second: *mut f32,
    panels: *mut f32,
}

/// A block of K.
struct Part {
    from: usize,
    terms: usize,
    /// Elements of the packed factors.
    k: usize,
    rows: RowsOfPart,
    /// The second segment, added by the tiles of the last block.
    second: Option<Second>,
}

/// The rows of A within a block of K, before a group's rows are copied.
#[derive(Clone, Copy)]
struct RowsOfPart {
    /// The first row; its row stride is from one group of interleaved rows to the next.
    first: Left,
    /// Rows that are interleaved.
    together: usize,
    /// Elements per row.
    k: usize,
}

impl RowsOfPart {
    fn at_row(self, row: usize) -> Left {
        Left { at: self.first.at.wrapping_add(row / self.together * self.first.row), ..self.first }
    }

    fn stretches(self, row: usize, rows: usize) -> Stretches {
        Stretches::rows(self.at_row(row), rows.div_ceil(self.together), self.k * self.together)
    }
}

impl<T: Stored> Product<T> {
    /// Computes one block of C.
    ///
    /// # Safety
    /// As for `run`.
    pub unsafe fn task(&self, loops: &Loops, block: &Block, kit: Kit<'_, T::At>) {
        let panel = kit.tiles.panel();
        let mut slivers = Vec::new();
        block.slivers(kit.tiles, |row, rows| slivers.push((row, rows)));
        let k = kit.elements(block.part);
        let once = at_once(block.rows, k);
        let sums_size = match block.part < self.k {
            true => slivers.len() * block.columns.div_ceil(panel) * kit.tiles.kept,
            false => 0,
        };
        let group_tiles = match once {
            true => slivers.len(),
            false if sums_size > 0 => GROUP,
            false => kit.group,
        };
        let left_row = apart(k);
        let left_size = match kit.left {
            None | Some(Lay::Packed(_)) => 0,
            Some(Lay::Rows | Lay::Columns) => group_tiles * kit.tiles.rows() * left_row,
        };
        let kept = if once { panel } else { block.columns.next_multiple_of(panel) };
        let second_size = kept * self.second.map_or(0, |s| s.k);
        // SAFETY: guaranteed by the caller.
        let _ready = unsafe { kit.tiles.ready() };
        workspace(sums_size + left_size + second_size + kept * k, |space| {
            let (sums, space) = space.split_at_mut(sums_size);
            let (left, space) = space.split_at_mut(left_size);
            let (second, panels) = space.split_at_mut(second_size);
            let space = Space {
                sums: if sums_size > 0 { sums.as_mut_ptr() } else { std::ptr::null_mut() },
                left: left.as_mut_ptr(),
                left_row,
                second: second.as_mut_ptr(),
                panels: panels.as_mut_ptr(),
            };
            let task = Task { product: self, loops, block, kit, slivers: &slivers, group_tiles, once, space };
            let mut packed = 0;
            for from in (0..self.k).step_by(block.part) {
                // SAFETY: guaranteed by the caller; the workspace has room for the packed, copied and kept elements.
                packed = unsafe { task.take_part(from, packed) };
            }
        });
    }
}

impl<T: Stored> Task<'_, T> {
    fn panel(&self) -> usize {
        self.kit.tiles.panel()
    }

    /// Terms of the block of K that starts at `from`.
    fn terms(&self, from: usize) -> usize {
        self.block.part.min(self.product.k - from)
    }

    /// The part of B for the panel of column `j` (relative to the task's first column) from term `from` on, and its
    /// width.
    fn source(&self, from: usize, j: usize) -> (Source<T::At>, usize) {
        let (product, block) = (self.product, self.block);
        let column = (block.column + j) * product.b_column;
        let at = product.b.plus(block.z * product.b_batch + from * product.b_row + column);
        let source = Source { at, row: product.b_row, column: product.b_column };
        (source, self.panel().min(block.columns - j))
    }

    /// The address of the panel of column `j`, of `k` rows, in `panels`. One buffer serves all panels when `once` is
    /// set.
    fn panel_at(&self, panels: *mut f32, j: usize, k: usize) -> *mut f32 {
        if self.once { panels } else { panels.wrapping_add(j * k) }
    }

    /// Whether all panels are packed together, row by row.
    fn row_by_row(&self) -> bool {
        self.kit.tiles.wide() && self.product.b_row != 1 && !self.once && !self.kit.in_place
    }

    /// Computes the block of K that starts at `from`; its first `packed` panels are already packed. Returns the number
    /// of panels that were packed for the next block.
    ///
    /// # Safety
    /// As for `Product::task`; `from` is a multiple of the block size and below K, the earlier blocks are done, and the
    /// first `packed` panels are in place.
    unsafe fn take_part(&self, from: usize, mut packed: usize) -> usize {
        let &Task { product, block, ref kit, .. } = self;
        let terms = self.terms(from);
        let k = kit.elements(terms);
        let rows = match kit.left {
            Some(Lay::Packed(a)) => {
                let row = block.z * product.m.next_multiple_of(a.together);
                RowsOfPart { first: a.rows(row, from / block.part), together: a.together, k }
            }
            // SAFETY: guaranteed by the caller.
            _ => RowsOfPart { first: unsafe { product.rows(block, 0, from) }, together: 1, k: terms },
        };
        let second = product.second.filter(|_| from + terms == product.k);
        let part = Part { from, terms, k, rows, second };
        // SAFETY: guaranteed by the caller.
        unsafe {
            if self.row_by_row() {
                self.pack_row_by_row(&part);
                packed = self.block.columns.div_ceil(self.panel());
            }
            let mut groups = self.slivers.chunks(self.group_tiles).peekable();
            let mut before = 0;
            while let Some(tiles) = groups.next() {
                let after = groups.peek().copied().unwrap_or_default();
                packed = self.take_group(&part, before, tiles, after, packed);
                before += tiles.len();
            }
        }
        packed
    }

    /// Packs all panels of a block of K, `B_ROWS` rows at a time.
    ///
    /// # Safety
    /// As for `take_part`.
    unsafe fn pack_row_by_row(&self, part: &Part) {
        let panel = self.panel();
        for t in (0..part.terms).step_by(B_ROWS) {
            for j in (0..self.block.columns).step_by(panel) {
                let (here, width) = self.source(part.from + t, j);
                let to = self.panel_at(self.space.panels, j, part.k).wrapping_add(t * panel);
                // SAFETY: guaranteed by the caller.
                unsafe { (self.kit.pack)(here, B_ROWS.min(part.terms - t), width, panel, to) };
            }
        }
    }

    /// Packs the panel of column `j`.
    ///
    /// # Safety
    /// As for `take_part`.
    unsafe fn pack(&self, part: &Part, j: usize) {
        let (here, width) = self.source(part.from, j);
        let to = self.panel_at(self.space.panels, j, part.k);
        // SAFETY: guaranteed by the caller.
        unsafe { (self.kit.pack)(here, part.terms, width, self.panel(), to) };
    }

    /// Multiplies a group of tiles by all panels. `before` is the number of tiles in earlier groups, `after` the next
    /// group, empty for the last. The first group packs the panels from `packed` on. Returns the number of panels
    /// packed for the next block.
    ///
    /// # Safety
    /// As for `take_part`; the earlier groups are done; for the first group, `packed` panels are in place. `tiles` is
    /// not empty.
    unsafe fn take_group(
        &self,
        part: &Part,
        before: usize,
        tiles: &[(usize, usize)],
        after: &[(usize, usize)],
        mut packed: usize,
    ) -> usize {
        let columns = self.block.columns;
        let (panels, run) = (columns.div_ceil(self.panel()), self.run_length());
        let steps = tiles.len() * part.k.div_ceil(STRIDE);
        // SAFETY: guaranteed by the caller.
        let left = unsafe { self.rows_of_group(part, tiles) };
        let mut ahead = Prefetch::nothing();
        if let ([(start, _), ..], true) = (after, self.rows_ahead()) {
            ahead.rows = part.rows.stretches(*start, extent(after)).over(panels * steps);
        }
        for (i, j) in (0..columns).step_by(self.panel()).enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe {
                if i.is_multiple_of(run) {
                    packed = packed.max(i) + ahead.finish_packing();
                    let [first, last] = [before == 0, after.is_empty()];
                    self.look_ahead(part, i, [first, last], steps * run.min(panels - i), &mut ahead);
                }
                if before == 0 && i >= packed && !self.kit.in_place {
                    self.pack(part, j);
                }
                self.take_panel(part, [j, before], tiles, left, &mut ahead);
            }
        }
        ahead.finish_packing()
    }

    /// The rows of a group in the layout that its tiles read; copies them if the layout asks for it.
    ///
    /// # Safety
    /// As for `take_part`.
    unsafe fn rows_of_group(&self, part: &Part, tiles: &[(usize, usize)]) -> Left {
        let &Space { left, left_row, .. } = &self.space;
        let (a, rows) = (part.rows.at_row(tiles[0].0), extent(tiles));
        match self.kit.left {
            None | Some(Lay::Packed(_)) => a,
            Some(Lay::Rows) => {
                // SAFETY: guaranteed by the caller.
                unsafe { copy(a, rows, part.terms, left, left_row) };
                Left { at: left, row: left_row, k: 1 }
            }
            Some(Lay::Columns) => {
                let from = Source { at: a.at, row: a.k, column: 1 };
                // SAFETY: guaranteed by the caller.
                unsafe { (f32::loops(self.loops).pack)(from, part.terms, rows, rows, left) };
                Left { at: left, row: 1, k: rows }
            }
        }
    }

    /// Multiplies a group's tiles by the panel of column `j`.
    ///
    /// # Safety
    /// As for `take_group`; `left` is the result of `rows_of_group`.
    unsafe fn take_panel(
        &self,
        part: &Part,
        [j, before]: [usize; 2],
        tiles: &[(usize, usize)],
        left: Left,
        ahead: &mut Prefetch,
    ) {
        let &Task { product, block, ref kit, ref space, .. } = self;
        let (k, panel, first) = (part.k, self.panel(), before == 0);
        let (here, width) = self.source(part.from, j);
        let place = self.panel_at(space.panels, j, k);
        let b = match kit.in_place {
            true => Right { at: here.at.address().cast(), k: product.b_row },
            false => Right { at: place, k: panel },
        };
        // SAFETY: guaranteed by the caller.
        unsafe {
            let second = part.second.map(|s| {
                let place = self.panel_at(space.second, j, s.k);
                if first {
                    s.pack(self.loops, [block.column + j, width], panel, place);
                }
                (s, Right { at: place, k: panel })
            });
            let start = tiles[0].0;
            let summed = kit.elements(kit.summed);
            let sums_go_on = !space.sums.is_null();
            for (i, &(row, rows)) in tiles.iter().enumerate() {
                let rows_at = RowsOfPart { first: left, ..part.rows }.at_row(row - start);
                let more = second.map(|(s, panel)| s.rows_by(row, panel));
                let kept = sums_go_on.then(|| {
                    let tile = (before + i) * block.columns.div_ceil(panel) + j / panel;
                    Kept {
                        at: space.sums.add(tile * kit.tiles.kept),
                        begun: part.from > 0,
                        goes_on: part.from + part.terms < product.k,
                    }
                });
                for from in (0..k).step_by(summed) {
                    let a = Left { at: rows_at.at.wrapping_add(from * rows_at.k), ..rows_at };
                    let b = Right { at: b.at.wrapping_add(from * b.k), ..b };
                    let first = sums_go_on || part.from + from == 0;
                    let epilogue = product.epilogue_at(block, row, block.column + j, first);
                    let more = more.as_ref().filter(|_| from + summed >= k);
                    let t = TileProduct { rows, k: summed.min(k - from), a, b, width, epilogue, more, kept };
                    kit.tiles.of(&t)(&t, ahead);
                }
            }
        }
    }
}

impl Second {
    /// Packs `width` columns from `column` on into a panel.
    unsafe fn pack(&self, loops: &Loops, [column, width]: [usize; 2], panel: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        let at = unsafe { self.b.add(column * self.b_column) };
        let source = Source { at, row: self.b_row, column: self.b_column };
        // SAFETY: guaranteed by the caller.
        unsafe { (f32::loops(loops).pack)(source, self.k, width, panel, to) };
    }

    /// The second segment's product of a tile: its rows of A from `row` on, and a panel.
    unsafe fn rows_by(&self, row: usize, b: Right) -> More {
        // SAFETY: guaranteed by the caller.
        let at = unsafe { self.a.add(row * self.a_row) };
        More { k: self.k, a: Left { at, row: self.a_row, k: self.a_column }, b, alpha: self.alpha }
    }
}

/// Whether `rows` rows of `words` elements are handled as one group, with one panel buffer.
pub fn at_once(rows: usize, words: usize) -> bool {
    rows <= MOST && rows * words <= ONCE
}

/// The total number of rows of `tiles`.
fn extent(tiles: &[(usize, usize)]) -> usize {
    tiles.iter().map(|(_, rows)| rows).sum()
}
