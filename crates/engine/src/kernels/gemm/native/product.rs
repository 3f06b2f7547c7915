//! A product over raw operands, and the choice of its kernels.

use super::blocking::{Blocking, WIDE_PANELS, blocking};
use super::cut::{Block, Cut};
use super::dot::FEW;
use super::lay::{Lay, Packed, apart, copy};
use super::loops::{Loops, Stored};
use super::microkernel::{Epilogue, Left};
use super::pack::At;
use super::panels::{Kit, at_once};
use super::terms::{SUMMED, deep_part, summed_of, summed_of_narrow};
use super::tiles::Tiles;
use super::workspace::{LINE, shared};

/// Most tiles of rows for which a row-major B is read in place.
const IN_PLACE_TILES: usize = 4;
/// Row stride, in elements, at which rows alias in L1 (4 KiB per way).
pub const ALIASED: usize = 1024;
/// Fewest columns for which aliasing rows of A are copied once for all tasks instead of by each task.
const COLUMNS: usize = 512;
/// Elements of A that are copied together: 32 MiB, plus padding. B is repacked for each such block.
const COPIED: usize = 8 << 20;
/// Minimum block of rows for which B is repacked.
const FEWEST_ROWS: usize = 512;
/// Panels per thread from which a partly filled last panel costs little.
const UNEVEN: usize = 16;

/// A product over raw operands; strides are in elements.
#[derive(Clone, Copy)]
pub struct Product<T: Stored> {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32,
    pub a_batch: usize,
    pub a_row: usize,
    pub a_column: usize,
    pub b: T::At,
    pub b_batch: usize,
    pub b_row: usize,
    pub b_column: usize,
    pub c: *mut f32,
    pub c_batch: usize,
    pub c_row: usize,
    pub alpha: f32,
    pub accumulate: bool,
    pub bias: *const f32,
    pub second: Option<Second>,
}

/// A second segment of the sum: C += alpha · A·B over `k` terms, after the first segment's epilogue. One matrix only.
#[derive(Clone, Copy)]
pub struct Second {
    pub k: usize,
    pub a: *const f32,
    pub a_row: usize,
    pub a_column: usize,
    pub b: *const f32,
    pub b_row: usize,
    pub b_column: usize,
    pub alpha: f32,
}

/// The plan of a tiled product.
pub struct Plan {
    tiles: &'static Tiles,
    /// Terms that are summed in registers before they are added to C.
    summed: usize,
    /// Terms per block of K.
    part: usize,
    /// Whether all rows are one group, if there are enough columns for the threads.
    once: bool,
    blocking: &'static Blocking,
    threads: usize,
}

// SAFETY: tasks read A and B and write disjoint parts of C.
unsafe impl<T: Stored> Sync for Product<T> {}
// SAFETY: tasks only read it.
unsafe impl Sync for Second {}

impl<T: Stored> Product<T> {
    /// C = A·Bᵀ of contiguous row-major matrices.
    pub fn by_rows([m, n, k]: [usize; 3], a: *const f32, b: T::At, c: *mut f32) -> Product<T> {
        Product {
            batch: 1,
            m,
            n,
            k,
            a,
            a_batch: 0,
            a_row: k,
            a_column: 1,
            b,
            b_batch: 0,
            b_row: 1,
            b_column: k,
            c,
            c_batch: 0,
            c_row: n,
            alpha: 1.0,
            accumulate: false,
            bias: std::ptr::null(),
            second: None,
        }
    }

    /// Computes the product on the threads of the current pool.
    ///
    /// # Safety
    /// The operands cover the given sizes and strides, and nothing else writes C.
    pub unsafe fn run(&self, loops: &'static Loops, threads: usize) {
        let dots = self.m <= FEW && self.b_row == 1 && self.a_column == 1;
        let strips = self.m <= FEW / 2 && self.b_column == 1;
        if let Some((first, second)) = self.apart(self.m <= FEW) {
            // SAFETY: guaranteed by the caller.
            return unsafe {
                first.run(loops, threads);
                second.run(loops, threads);
            };
        }
        if dots {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.dots(loops, threads) };
        }
        if strips {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.strips(loops, threads) };
        }
        match self.copied_at_a_time(loops) {
            // SAFETY: guaranteed by the caller.
            Some(rows) => unsafe { self.run_copied(loops, blocking(), rows, threads) },
            // SAFETY: guaranteed by the caller.
            None => unsafe { self.run_tiles(loops, &self.plan(loops, blocking(), threads), None) },
        }
    }

    /// The product restricted to `rows` rows of matrix `z`.
    ///
    /// # Safety
    /// The matrix has these rows.
    pub(super) unsafe fn of_rows(&self, z: usize, row: usize, rows: usize) -> Product<T> {
        // SAFETY: guaranteed by the caller.
        unsafe {
            Product {
                batch: 1,
                m: rows,
                a: self.a.add(z * self.a_batch + row * self.a_row),
                b: self.b.plus(z * self.b_batch),
                c: self.c.add(z * self.c_batch + row * self.c_row),
                second: self.second.map(|s| Second { a: s.a.add(row * s.a_row), ..s }),
                ..*self
            }
        }
    }

    /// Plans the tiled product.
    pub(super) fn plan(&self, loops: &'static Loops, blocking: &'static Blocking, threads: usize) -> Plan {
        let wide = |tiles: &&'static Tiles| {
            let panels = self.n.div_ceil(tiles.panel());
            let enough = if self.n.is_multiple_of(tiles.panel()) { 2 } else { UNEVEN };
            let once = at_once(self.m, self.summed(loops));
            T::IS_F32 && blocking.wide && panels >= enough * threads && !once
        };
        let tiles = loops.wide.as_ref().filter(wide).unwrap_or(&loops.tiles);
        self.plan_by(loops, tiles, blocking, threads)
    }

    /// Plans the product with the given tiles.
    pub(super) fn plan_by(
        &self,
        loops: &Loops,
        tiles: &'static Tiles,
        blocking: &'static Blocking,
        threads: usize,
    ) -> Plan {
        let summed = self.summed(loops);
        let once = at_once(self.m, summed);
        // A copy of A's columns would need as many terms, next to fewer panels.
        let deep = tiles.wide() && self.a_column == 1 && !once;
        let room = blocking.workspace / tiles.panel();
        let part = if deep { deep_part(self.k, summed, room, threads) } else { summed };
        Plan { tiles, summed, part, once, blocking, threads }
    }

    /// Terms that are summed in registers before they are added to C. Only the sizes and the instruction set decide, so
    /// that both kinds of tiles give the same bits.
    fn summed(&self, Loops { tiles, .. }: &Loops) -> usize {
        // Aᵀ·B of row-major factors.
        let by_terms = T::IS_F32 && self.a_row == 1 && self.b_column == 1;
        if by_terms && self.is_narrow(self.m, tiles) { summed_of_narrow(self.k) } else { summed_of(self.k) }
    }

    /// The tiled product; `copied` is the packed A, if A was packed for all tasks.
    ///
    /// # Safety
    /// As for `run`; `copied` holds all rows of this product.
    pub(super) unsafe fn run_tiles(&self, loops: &'static Loops, plan: &Plan, copied: Option<Packed>) {
        let &Plan { tiles, part, once, blocking, threads, .. } = plan;
        let sizes = [self.batch, self.m, self.n, self.k];
        let widest = match copied {
            Some(_) => blocking.panels,
            None if tiles.wide() => WIDE_PANELS,
            None => blocking.panels_uncopied,
        };
        let at_once = once.then(|| Cut::once(tiles, sizes, part, threads)).flatten();
        let cut = at_once.unwrap_or_else(|| Cut::new(tiles, sizes, part, blocking, widest, threads));
        // SAFETY: guaranteed by the caller; no two blocks share an element of C.
        cut.run(|block| unsafe { self.task(loops, &block, self.kit(loops, plan, &block, copied)) });
    }

    /// Whether `rows` rows, or all columns, are few.
    fn is_narrow(&self, rows: usize, tiles: &Tiles) -> bool {
        rows <= IN_PLACE_TILES * tiles.rows() || self.n <= tiles.panel()
    }

    /// Rows of A to copy together for all tasks. `None` unless rows alias in L1 and enough tasks read them.
    fn copied_at_a_time(&self, loops: &Loops) -> Option<usize> {
        let wanted = self.batch == 1 && self.aliased() && self.m > loops.tiles.rows() && self.n >= COLUMNS;
        let rows = COPIED / self.k;
        (wanted && rows >= self.m.min(FEWEST_ROWS)).then(|| self.m.div_ceil(self.m.div_ceil(rows)))
    }

    /// The product with A copied once for all tasks, `rows` rows at a time.
    ///
    /// # Safety
    /// As for `run`.
    pub(super) unsafe fn run_copied(
        &self,
        loops: &'static Loops,
        blocking: &'static Blocking,
        rows: usize,
        threads: usize,
    ) {
        for row in (0..self.m).step_by(rows) {
            // SAFETY: guaranteed by the caller.
            let some = unsafe { self.of_rows(0, row, rows.min(self.m - row)) };
            let plan = some.plan(loops, blocking, threads);
            let apart = apart(plan.part);
            let size = some.m * apart;
            shared(self.k.div_ceil(plan.part) * size, |space| {
                let to = Packed { at: space.as_mut_ptr(), together: 1, row: apart, part: size };
                // SAFETY: guaranteed by the caller.
                unsafe {
                    some.lay(copy, to, plan.part, threads);
                    some.run_tiles(loops, &plan, Some(to));
                }
            });
        }
    }

    /// Whether rows of A alias in L1.
    fn aliased(&self) -> bool {
        self.a_column == 1 && self.a_row.is_multiple_of(ALIASED)
    }

    /// Splits off the second segment as a separate product where tiles do not handle both: kernels for `few` rows have
    /// no second segment, and one with many terms needs blocks of K itself.
    pub(super) fn apart(&self, few: bool) -> Option<(Product<T>, Product<f32>)> {
        let second = self.second.filter(|s| few || s.k > SUMMED)?;
        let Second { k, a, a_row, a_column, b, b_row, b_column, alpha } = second;
        debug_assert!(self.batch == 1, "a second segment is of one matrix");
        let apart = Product {
            a_row,
            a_column,
            b_row,
            b_column,
            c_row: self.c_row,
            alpha,
            accumulate: true,
            ..Product::by_rows([self.m, self.n, k], a, b, self.c)
        };
        Some((Product { second: None, ..*self }, apart))
    }

    /// The configuration of a task: kernels and layouts.
    fn kit(
        &self,
        loops: &'static Loops,
        &Plan { tiles, summed, blocking, .. }: &Plan,
        block: &Block,
        copied: Option<Packed>,
    ) -> Kit<'static, T::At> {
        // B is read in place where it already has the layout of a panel and is read too few times to pay for packing.
        let in_place = T::IS_F32 && self.b_column == 1 && self.is_narrow(block.rows, tiles);
        // If they are read more than once, rows of A that alias in L1 are copied, and so are columns if each term's few
        // elements are in a separate cache line.
        let often = block.columns > tiles.panel();
        let aliased = self.aliased() && block.rows > tiles.rows() && often;
        let turned = self.a_row == 1 && self.a_column > LINE && often;
        let left = match copied {
            Some(copied) => Some(Lay::Packed(copied)),
            None if aliased => Some(Lay::Rows),
            None if turned => Some(Lay::Columns),
            None => None,
        };
        Kit {
            pack: T::loops(loops).pack,
            tiles,
            terms: 1,
            whole: 1,
            left,
            in_place,
            group: blocking.group,
            summed,
        }
    }

    /// A from `row` and term `from` on.
    pub(super) unsafe fn rows(&self, block: &Block, row: usize, from: usize) -> Left {
        let at = block.z * self.a_batch + row * self.a_row + from * self.a_column;
        // SAFETY: guaranteed by the caller.
        Left { at: unsafe { self.a.add(at) }, row: self.a_row, k: self.a_column }
    }

    /// The epilogue of the tile at `row` and `column`. The first block of K adds the bias; later blocks add to C.
    pub(super) unsafe fn epilogue_at(
        &self,
        block: &Block,
        row: usize,
        column: usize,
        first: bool,
    ) -> Epilogue {
        let bias =
            // SAFETY: guaranteed by the caller.
            if first && !self.bias.is_null() { unsafe { self.bias.add(column) } } else { std::ptr::null() };
        Epilogue {
            // SAFETY: guaranteed by the caller.
            c: unsafe { self.c.add(block.z * self.c_batch + row * self.c_row + column) },
            row: self.c_row,
            alpha: self.alpha,
            bias,
            accumulate: self.accumulate || !first,
        }
    }
}
