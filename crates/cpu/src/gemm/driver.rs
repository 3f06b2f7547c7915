//! Runs a product: chooses its kernels and its blocking, and distributes blocks of C over threads.

use super::arguments::MAX_GEMV_ROWS;
use super::blocking::{
    Blocking, WIDE_PANELS, blocking, choose_deep_kc, choose_narrow_register_kc, choose_register_kc,
};
use super::cache_line::{ALIASING_STRIDE, LINE, choose_leading_dimension};
use super::microkernel::tiles::Tiles;
use super::pack::a::{LayoutA, PackedA, copy};
use super::partition::{CBlock, Partition};
use super::product::Product;
use super::table::{KernelTable, Storage};
use super::task::{TaskConfig, is_single_group};
use super::workspace::with_shared;

/// Most tiles of rows for which a row-major B is read in place.
const IN_PLACE_TILES: usize = 4;
/// Fewest columns for which aliasing rows of A are copied once for all tasks instead of by each task.
const MIN_COPY_COLUMNS: usize = 512;
/// Elements of A that are copied together: 32 MiB, plus padding. B is repacked for each such block.
const COPY_ELEMENTS: usize = 8 << 20;
/// Minimum block of rows for which B is repacked.
const MIN_COPY_ROWS: usize = 512;
/// Panels per thread from which a partly filled last panel costs little.
const MIN_PANELS_FOR_PARTIAL: usize = 16;

/// The plan of a tiled product.
pub struct Plan {
    tiles: &'static Tiles,
    /// Terms that are summed in registers before they are added to C.
    register_kc: usize,
    /// Terms per block of K.
    kc: usize,
    /// Whether all rows are one group, if there are enough columns for the threads.
    single_group: bool,
    blocking: &'static Blocking,
    threads: usize,
}

impl<T: Storage> Product<T> {
    /// Computes the product on the threads of the current pool.
    ///
    /// # Safety
    /// The operands cover the given sizes and strides, and nothing else writes C.
    pub(super) unsafe fn run(&self, table: &'static KernelTable, threads: usize) {
        let dots = self.m <= MAX_GEMV_ROWS && self.b_row == 1 && self.a_column == 1;
        let strips = self.m <= MAX_GEMV_ROWS / 2 && self.b_column == 1;
        if let Some((first, second)) = self.split_second(self.m <= MAX_GEMV_ROWS) {
            // SAFETY: guaranteed by the caller.
            return unsafe {
                first.run(table, threads);
                second.run(table, threads);
            };
        }
        if dots {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.gemv_dots(table, threads) };
        }
        if strips {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.gemv_strips(table, threads) };
        }
        match self.choose_rows_per_copy(table) {
            // SAFETY: guaranteed by the caller.
            Some(rows) => unsafe { self.run_with_copied_a(table, blocking(), rows, threads) },
            // SAFETY: guaranteed by the caller.
            None => unsafe { self.run_blocked(table, &self.plan(table, blocking(), threads), None) },
        }
    }

    /// Plans the tiled product.
    pub(super) fn plan(
        &self,
        table: &'static KernelTable,
        blocking: &'static Blocking,
        threads: usize,
    ) -> Plan {
        let wide = |tiles: &&'static Tiles| {
            let panels = self.n.div_ceil(tiles.panel());
            let enough = if self.n.is_multiple_of(tiles.panel()) { 2 } else { MIN_PANELS_FOR_PARTIAL };
            let single_group = is_single_group(self.m, self.select_register_kc(table));
            T::IS_F32 && blocking.wide && panels >= enough * threads && !single_group
        };
        let tiles = table.wide.as_ref().filter(wide).unwrap_or(&table.tiles);
        self.plan_with(table, tiles, blocking, threads)
    }

    /// Plans the product with the given tiles.
    pub(super) fn plan_with(
        &self,
        table: &KernelTable,
        tiles: &'static Tiles,
        blocking: &'static Blocking,
        threads: usize,
    ) -> Plan {
        let register_kc = self.select_register_kc(table);
        let single_group = is_single_group(self.m, register_kc);
        // A copy of A's columns would need as many terms, next to fewer panels.
        let deep = tiles.is_wide() && self.a_column == 1 && !single_group;
        let room = blocking.workspace / tiles.panel();
        let kc = if deep { choose_deep_kc(self.k, register_kc, room, threads) } else { register_kc };
        Plan { tiles, register_kc, kc, single_group, blocking, threads }
    }

    /// Terms that are summed in registers before they are added to C. Only the sizes and the instruction set decide, so
    /// that both kinds of tiles give the same bits.
    fn select_register_kc(&self, KernelTable { tiles, .. }: &KernelTable) -> usize {
        // Aᵀ·B of row-major factors.
        let by_terms = T::IS_F32 && self.a_row == 1 && self.b_column == 1;
        if by_terms && self.is_narrow(self.m, tiles) {
            choose_narrow_register_kc(self.k)
        } else {
            choose_register_kc(self.k)
        }
    }

    /// The tiled product; `copied` is the packed A, if A was packed for all tasks.
    ///
    /// # Safety
    /// As for `run`; `copied` holds all rows of this product.
    pub(super) unsafe fn run_blocked(
        &self,
        table: &'static KernelTable,
        plan: &Plan,
        copied: Option<PackedA>,
    ) {
        let &Plan { tiles, kc, single_group, blocking, threads, .. } = plan;
        let sizes = [self.batch, self.m, self.n, self.k];
        let widest = match copied {
            Some(_) => blocking.panels,
            None if tiles.is_wide() => WIDE_PANELS,
            None => blocking.panels_uncopied,
        };
        let single = single_group.then(|| Partition::single_group(tiles, sizes, kc, threads)).flatten();
        let partition = single.unwrap_or_else(|| Partition::new(tiles, sizes, kc, blocking, widest, threads));
        // SAFETY: guaranteed by the caller; no two blocks share an element of C.
        partition.run(|block| unsafe {
            self.run_task(table, &block, self.make_task_config(table, plan, &block, copied))
        });
    }

    /// Whether `rows` rows, or all columns, are few.
    fn is_narrow(&self, rows: usize, tiles: &Tiles) -> bool {
        rows <= IN_PLACE_TILES * tiles.rows() || self.n <= tiles.panel()
    }

    /// Rows of A to copy together for all tasks. `None` unless rows alias in L1 and enough tasks read them.
    fn choose_rows_per_copy(&self, table: &KernelTable) -> Option<usize> {
        let wanted = self.batch == 1
            && self.has_aliasing_rows()
            && self.m > table.tiles.rows()
            && self.n >= MIN_COPY_COLUMNS;
        let rows = COPY_ELEMENTS / self.k;
        (wanted && rows >= self.m.min(MIN_COPY_ROWS)).then(|| self.m.div_ceil(self.m.div_ceil(rows)))
    }

    /// The product with A copied once for all tasks, `rows` rows at a time.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn run_with_copied_a(
        &self,
        table: &'static KernelTable,
        blocking: &'static Blocking,
        rows: usize,
        threads: usize,
    ) {
        for row in (0..self.m).step_by(rows) {
            // SAFETY: guaranteed by the caller.
            let block_rows = unsafe { self.restrict_rows(0, row, rows.min(self.m - row)) };
            let plan = block_rows.plan(table, blocking, threads);
            let ld = choose_leading_dimension(plan.kc);
            let size = block_rows.m * ld;
            with_shared(self.k.div_ceil(plan.kc) * size, |space| {
                let to = PackedA { at: space.as_mut_ptr(), interleaved: 1, row: ld, k_block_stride: size };
                // SAFETY: guaranteed by the caller.
                unsafe {
                    block_rows.pack_a(copy, to, plan.kc, threads);
                    block_rows.run_blocked(table, &plan, Some(to));
                }
            });
        }
    }

    /// Whether rows of A alias in L1.
    fn has_aliasing_rows(&self) -> bool {
        self.a_column == 1 && self.a_row.is_multiple_of(ALIASING_STRIDE)
    }

    /// The configuration of a task: kernels and layouts.
    fn make_task_config(
        &self,
        table: &'static KernelTable,
        &Plan { tiles, register_kc, blocking, .. }: &Plan,
        block: &CBlock,
        copied: Option<PackedA>,
    ) -> TaskConfig<'static, T::Position> {
        // B is read in place where it already has the layout of a panel and is read too few times to pay for packing.
        let in_place = T::IS_F32 && self.b_column == 1 && self.is_narrow(block.rows, tiles);
        // If they are read more than single_group, rows of A that alias in L1 are copied, and so are columns if each
        // term's few elements are in a separate cache line.
        let often = block.columns > tiles.panel();
        let aliased = self.has_aliasing_rows() && block.rows > tiles.rows() && often;
        let transposed = self.a_row == 1 && self.a_column > LINE && often;
        let layout_a = match copied {
            Some(copied) => Some(LayoutA::PackedA(copied)),
            None if aliased => Some(LayoutA::Rows),
            None if transposed => Some(LayoutA::Columns),
            None => None,
        };
        TaskConfig {
            pack: T::kernels(table).pack,
            tiles,
            terms_per_element: 1,
            term_granularity: 1,
            layout_a,
            in_place,
            group: blocking.group,
            register_kc,
        }
    }
}
