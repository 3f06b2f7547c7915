//! One task of the GEMM: packs its columns of B into panels that stay in L2, one block of K at a time, and multiplies
//! groups of A's rows by each panel, one register tile at a time.
//!
//! The first group of tiles uses a panel right after it was packed; later groups find it in L2. Meanwhile the next
//! panel and the next group's rows are prefetched. A row-major B is prefetched in runs of panels, whose columns share
//! cache lines.
//!
//! Tiles of three vectors leave rows to the hardware prefetcher: the rows of A, unless they are copied, and the rows of
//! a row-major B, since all its panels of a task are packed at once.
//!
//! Few rows form one group, whose tasks are wide and keep a single panel. A block of K has as many terms as are summed
//! in registers or, for tiles of three vectors, a multiple (`blocking::choose_deep_kc`). Sums are added to C, or kept
//! in the workspace until the next block where the tiles support it.

mod ahead;

use super::arguments::{Left, PackB, PartialSums, Position, Right, Source, TileProduct};
use super::cache_line::choose_leading_dimension;
use super::microkernel::prefetch::{Prefetch, StridedPrefetch};
use super::microkernel::row_pointers::STRIDE;
use super::microkernel::tiles::Tiles;
use super::pack::a::{LayoutA, copy};
use super::partition::CBlock;
use super::product::{Product, SecondSegment};
use super::table::{KernelTable, Storage};
use super::workspace::with_workspace;

/// Elements of packed A that L2 holds in addition to a panel.
const MAX_ELEMENTS: usize = 96 * 1024;
/// Tiles of rows per group when sums are kept from block to block of K.
const KEPT_GROUP: usize = 4;
/// Rows of B that are packed into all panels before the next rows.
const B_ROWS: usize = 8;
/// Most rows of a task that are handled as one group, whatever their size.
const MAX_ROWS: usize = 256;

/// The configuration of a task: its kernels and the layouts of its factors.
#[derive(Clone, Copy)]
pub struct TaskConfig<'a, P> {
    pub pack: PackB<P>,
    pub tiles: &'a Tiles,
    /// Terms per element of a packed factor (2 for pairs of bf16).
    pub terms_per_element: usize,
    /// Terms per step of a tile; packed factors are padded to a multiple.
    pub term_granularity: usize,
    /// The layout of A; `None` reads A in place.
    pub layout_a: Option<LayoutA>,
    /// Whether B is read in place.
    pub in_place: bool,
    /// Tiles of rows per group: they use a panel before the next panel is packed.
    pub group: usize,
    /// Terms that are summed in registers before they are added to C; a block of K has a multiple of them.
    pub register_kc: usize,
}

impl<P> TaskConfig<'_, P> {
    /// Elements of a packed factor that hold `terms` terms.
    fn count_elements(&self, terms: usize) -> usize {
        terms.next_multiple_of(self.term_granularity) / self.terms_per_element
    }
}

/// A running task.
struct Task<'a, T: Storage> {
    product: &'a Product<T>,
    table: &'a KernelTable,
    block: &'a CBlock,
    config: TaskConfig<'a, T::Position>,
    /// The first row and the number of rows of each tile.
    tile_rows: &'a [(usize, usize)],
    /// Tiles of rows per group.
    group_tiles: usize,
    /// Whether all rows are one group, so that one panel buffer is enough.
    single_group: bool,
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
struct KBlock {
    from: usize,
    terms: usize,
    /// Elements of the packed factors.
    k: usize,
    rows: KBlockRows,
    /// The second segment, added by the tiles of the last block.
    second: Option<SecondSegment>,
}

/// The rows of A within a block of K, before a group's rows are copied.
#[derive(Clone, Copy)]
struct KBlockRows {
    /// The first row; its row stride is from one group of interleaved rows to the next.
    first: Left,
    /// Rows that are interleaved.
    interleaved: usize,
    /// Elements per row.
    k: usize,
}

impl KBlockRows {
    fn at_row(self, row: usize) -> Left {
        Left { at: self.first.at.wrapping_add(row / self.interleaved * self.first.row), ..self.first }
    }

    fn prefetch(self, row: usize, rows: usize) -> StridedPrefetch {
        StridedPrefetch::for_rows(
            self.at_row(row),
            rows.div_ceil(self.interleaved),
            self.k * self.interleaved,
        )
    }
}

impl<T: Storage> Product<T> {
    /// Computes one block of C.
    ///
    /// # Safety
    /// As for `run`.
    pub unsafe fn run_task(&self, table: &KernelTable, block: &CBlock, config: TaskConfig<'_, T::Position>) {
        let panel = config.tiles.panel();
        let mut tile_rows = Vec::new();
        block.for_each_tile(config.tiles, |row, rows| tile_rows.push((row, rows)));
        let k = config.count_elements(block.kc);
        let single_group = is_single_group(block.rows, k);
        let sums_size = match block.kc < self.k {
            true => tile_rows.len() * block.columns.div_ceil(panel) * config.tiles.kept_sums,
            false => 0,
        };
        let group_tiles = match single_group {
            true => tile_rows.len(),
            false if sums_size > 0 => KEPT_GROUP,
            false => config.group,
        };
        let left_row = choose_leading_dimension(k);
        let left_size = match config.layout_a {
            None | Some(LayoutA::PackedA(_)) => 0,
            Some(LayoutA::Rows | LayoutA::Columns) => group_tiles * config.tiles.rows() * left_row,
        };
        let kept = if single_group { panel } else { block.columns.next_multiple_of(panel) };
        let second_size = kept * self.second.map_or(0, |s| s.k);
        // SAFETY: guaranteed by the caller.
        let _setup = unsafe { config.tiles.set_up_thread() };
        with_workspace(sums_size + left_size + second_size + kept * k, |space| {
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
            let task = Task {
                product: self,
                table,
                block,
                config,
                tile_rows: &tile_rows,
                group_tiles,
                single_group,
                space,
            };
            for from in (0..self.k).step_by(block.kc) {
                // SAFETY: guaranteed by the caller; the workspace has room for the packed, copied and kept elements.
                unsafe { task.run_k_block(from) };
            }
        });
    }
}

impl<T: Storage> Task<'_, T> {
    fn panel(&self) -> usize {
        self.config.tiles.panel()
    }

    /// Terms of the block of K that starts at `from`.
    fn count_terms(&self, from: usize) -> usize {
        self.block.kc.min(self.product.k - from)
    }

    /// The part of B for the panel of column `j` (relative to the task's first column) from term `from` on, and its
    /// width.
    fn find_source(&self, from: usize, j: usize) -> (Source<T::Position>, usize) {
        let (product, block) = (self.product, self.block);
        let column = (block.column + j) * product.b_column;
        let at = product.b.plus(block.z * product.b_batch + from * product.b_row + column);
        let source = Source { at, row: product.b_row, column: product.b_column };
        (source, self.panel().min(block.columns - j))
    }

    /// The address of the panel of column `j`, of `k` rows, in `panels`. One buffer serves all panels when
    /// `single_group` is set.
    fn panel_at(&self, panels: *mut f32, j: usize, k: usize) -> *mut f32 {
        if self.single_group { panels } else { panels.wrapping_add(j * k) }
    }

    /// Whether all panels are packed together, row by row.
    fn packs_row_by_row(&self) -> bool {
        self.config.tiles.is_wide() && self.product.b_row != 1 && !self.single_group && !self.config.in_place
    }

    /// Computes the block of K that starts at `from`.
    ///
    /// # Safety
    /// As for `Product::run_task`; `from` is a multiple of the block size and below K, and the earlier blocks are done.
    unsafe fn run_k_block(&self, from: usize) {
        let &Task { product, block, ref config, .. } = self;
        let terms = self.count_terms(from);
        let k = config.count_elements(terms);
        let rows = match config.layout_a {
            Some(LayoutA::PackedA(a)) => {
                let row = block.z * product.m.next_multiple_of(a.interleaved);
                KBlockRows { first: a.rows(row, from / block.kc), interleaved: a.interleaved, k }
            }
            // SAFETY: guaranteed by the caller.
            _ => KBlockRows { first: unsafe { product.a_at(block, 0, from) }, interleaved: 1, k: terms },
        };
        let second = product.second.filter(|_| from + terms == product.k);
        let k_block = KBlock { from, terms, k, rows, second };
        // SAFETY: guaranteed by the caller.
        unsafe {
            if self.packs_row_by_row() {
                self.pack_row_by_row(&k_block);
            }
            let mut groups = self.tile_rows.chunks(self.group_tiles).peekable();
            let mut before = 0;
            while let Some(tiles) = groups.next() {
                let after = groups.peek().copied().unwrap_or_default();
                self.multiply_group(&k_block, before, tiles, after);
                before += tiles.len();
            }
        }
    }

    /// Packs all panels of a block of K, `B_ROWS` rows at a time.
    ///
    /// # Safety
    /// As for `run_k_block`.
    unsafe fn pack_row_by_row(&self, k_block: &KBlock) {
        let panel = self.panel();
        for t in (0..k_block.terms).step_by(B_ROWS) {
            for j in (0..self.block.columns).step_by(panel) {
                let (here, width) = self.find_source(k_block.from + t, j);
                let to = self.panel_at(self.space.panels, j, k_block.k).wrapping_add(t * panel);
                // SAFETY: guaranteed by the caller.
                unsafe { (self.config.pack)(here, B_ROWS.min(k_block.terms - t), width, panel, to) };
            }
        }
    }

    /// Packs the panel of column `j`.
    ///
    /// # Safety
    /// As for `run_k_block`.
    unsafe fn pack(&self, k_block: &KBlock, j: usize) {
        let (here, width) = self.find_source(k_block.from, j);
        let to = self.panel_at(self.space.panels, j, k_block.k);
        // SAFETY: guaranteed by the caller.
        unsafe { (self.config.pack)(here, k_block.terms, width, self.panel(), to) };
    }

    /// Multiplies a group of tiles by all panels. `before` is the number of tiles in earlier groups, `after` the next
    /// group, empty for the last. The first group packs the panels, unless they were packed row by row.
    ///
    /// # Safety
    /// As for `run_k_block`; the earlier groups are done. `tiles` is not empty.
    unsafe fn multiply_group(
        &self,
        k_block: &KBlock,
        before: usize,
        tiles: &[(usize, usize)],
        after: &[(usize, usize)],
    ) {
        let columns = self.block.columns;
        let (panels, run) = (columns.div_ceil(self.panel()), self.panels_per_run());
        let steps = tiles.len() * k_block.k.div_ceil(STRIDE);
        // SAFETY: guaranteed by the caller.
        let left = unsafe { self.copy_group_rows(k_block, tiles) };
        let packs = before == 0 && !self.config.in_place && !self.packs_row_by_row();
        let mut ahead = Prefetch::none();
        if let ([(start, _), ..], true) = (after, self.prefetches_rows()) {
            ahead.rows = k_block.rows.prefetch(*start, count_rows(after)).distribute(panels * steps);
        }
        for (i, j) in (0..columns).step_by(self.panel()).enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe {
                if i.is_multiple_of(run) {
                    let ends = [before == 0, after.is_empty()];
                    ahead.panels = self.find_run_ahead(k_block, i, ends, steps * run.min(panels - i));
                }
                if packs {
                    self.pack(k_block, j);
                }
                self.multiply_panel(k_block, [j, before], tiles, left, &mut ahead);
            }
        }
    }

    /// The rows of a group in the layout that its tiles read; copies them if the layout asks for it.
    ///
    /// # Safety
    /// As for `run_k_block`.
    unsafe fn copy_group_rows(&self, k_block: &KBlock, tiles: &[(usize, usize)]) -> Left {
        let &Space { left, left_row, .. } = &self.space;
        let (a, rows) = (k_block.rows.at_row(tiles[0].0), count_rows(tiles));
        match self.config.layout_a {
            None | Some(LayoutA::PackedA(_)) => a,
            Some(LayoutA::Rows) => {
                // SAFETY: guaranteed by the caller.
                unsafe { copy(a, rows, k_block.terms, left, left_row) };
                Left { at: left, row: left_row, k: 1 }
            }
            Some(LayoutA::Columns) => {
                let from = Source { at: a.at, row: a.k, column: 1 };
                // SAFETY: guaranteed by the caller.
                unsafe { (f32::kernels(self.table).pack)(from, k_block.terms, rows, rows, left) };
                Left { at: left, row: 1, k: rows }
            }
        }
    }

    /// Multiplies a group's tiles by the panel of column `j`.
    ///
    /// # Safety
    /// As for `multiply_group`; `left` is the result of `copy_group_rows`.
    unsafe fn multiply_panel(
        &self,
        k_block: &KBlock,
        [j, before]: [usize; 2],
        tiles: &[(usize, usize)],
        left: Left,
        ahead: &mut Prefetch,
    ) {
        let &Task { product, block, ref config, ref space, .. } = self;
        let (k, panel, first) = (k_block.k, self.panel(), before == 0);
        let (here, width) = self.find_source(k_block.from, j);
        let place = self.panel_at(space.panels, j, k);
        let b = match config.in_place {
            true => Right { at: here.at.address().cast(), k: product.b_row },
            false => Right { at: place, k: panel },
        };
        // SAFETY: guaranteed by the caller.
        unsafe {
            let second = k_block.second.map(|s| {
                let place = self.panel_at(space.second, j, s.k);
                if first {
                    s.pack_panel(self.table, [block.column + j, width], panel, place);
                }
                (s, Right { at: place, k: panel })
            });
            let start = tiles[0].0;
            let register_kc = config.count_elements(config.register_kc);
            let keeps_sums = !space.sums.is_null();
            for (i, &(row, rows)) in tiles.iter().enumerate() {
                let rows_at = KBlockRows { first: left, ..k_block.rows }.at_row(row - start);
                let second = second.map(|(s, panel)| s.make_second_tile(row, panel));
                let kept = keeps_sums.then(|| {
                    let tile = (before + i) * block.columns.div_ceil(panel) + j / panel;
                    PartialSums {
                        at: space.sums.add(tile * config.tiles.kept_sums),
                        resumed: k_block.from > 0,
                        continues: k_block.from + k_block.terms < product.k,
                    }
                });
                for from in (0..k).step_by(register_kc) {
                    let a = Left { at: rows_at.at.wrapping_add(from * rows_at.k), ..rows_at };
                    let b = Right { at: b.at.wrapping_add(from * b.k), ..b };
                    let first = keeps_sums || k_block.from + from == 0;
                    let epilogue = product.make_epilogue(block, row, block.column + j, first);
                    let second = second.as_ref().filter(|_| from + register_kc >= k);
                    let t = TileProduct {
                        rows,
                        k: register_kc.min(k - from),
                        a,
                        b,
                        width,
                        epilogue,
                        second,
                        kept,
                    };
                    config.tiles.find(&t)(&t, ahead);
                }
            }
        }
    }
}

/// Whether `rows` rows of `words` elements are handled as one group, with one panel buffer.
pub fn is_single_group(rows: usize, words: usize) -> bool {
    rows <= MAX_ROWS && rows * words <= MAX_ELEMENTS
}

/// The total number of rows of `tiles`.
fn count_rows(tiles: &[(usize, usize)]) -> usize {
    tiles.iter().map(|(_, rows)| rows).sum()
}
