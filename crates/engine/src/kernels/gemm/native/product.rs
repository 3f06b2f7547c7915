//! A product over raw operands, and by which loops it runs.

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

/// Tiles of rows for which B is read where it lies, if it lies row-major.
const IN_PLACE_TILES: usize = 4;
/// Elements apart that rows fall on the same sets of L1, whose ways are 4 KiB.
pub const ALIASED: usize = 1024;
/// Columns from which such rows are copied for all tasks, and not by each.
const COLUMNS: usize = 512;
/// Elements of A that are copied at a time: 32 MiB, and what pads them. B is packed anew for each.
const COPIED: usize = 8 << 20;
/// Fewest rows at a time that B is packed anew for, unless A has fewer.
const FEWEST_ROWS: usize = 512;
/// Panels of a thread from which it is little that the last is not full.
const UNEVEN: usize = 16;

/// A product over raw operands; the steps are in elements.
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

/// A second part of the sum of one matrix: c += alpha · A·B, over `k` terms, after the first's epilogue.
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

/// How a product runs by tiles.
pub struct Plan {
    tiles: &'static Tiles,
    /// Terms that are summed in registers before they are added to C.
    summed: usize,
    /// Terms that are packed at a time.
    part: usize,
    /// All rows are taken at once, if there are columns enough for the threads.
    once: bool,
    blocking: &'static Blocking,
    threads: usize,
}

// SAFETY: tasks read A and B and write disjoint parts of C.
unsafe impl<T: Stored> Sync for Product<T> {}
// SAFETY: tasks read it alone.
unsafe impl Sync for Second {}

impl<T: Stored> Product<T> {
    /// C = A·Bᵀ of matrices whose rows lie one after another.
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

    /// Runs on the threads of the current pool.
    ///
    /// # Safety
    /// The operands reach as far as the sizes and steps say, and nothing else writes C.
    pub unsafe fn run(&self, loops: &'static Loops, threads: usize) {
        let dots = self.m <= FEW && self.b_row == 1 && self.a_column == 1;
        let strips = self.m <= FEW / 2 && self.b_column == 1;
        if let Some((first, second)) = self.apart(self.m <= FEW) {
            // SAFETY: the caller's.
            return unsafe {
                first.run(loops, threads);
                second.run(loops, threads);
            };
        }
        if dots {
            // SAFETY: the caller's.
            return unsafe { self.dots(loops, threads) };
        }
        if strips {
            // SAFETY: the caller's.
            return unsafe { self.strips(loops, threads) };
        }
        match self.copied_at_a_time(loops) {
            // SAFETY: the caller's.
            Some(rows) => unsafe { self.run_copied(loops, blocking(), rows, threads) },
            // SAFETY: the caller's.
            None => unsafe { self.run_tiles(loops, &self.plan(loops, blocking(), threads), None) },
        }
    }

    /// The product of some rows of a matrix.
    ///
    /// # Safety
    /// There are such rows.
    pub(super) unsafe fn of_rows(&self, z: usize, row: usize, rows: usize) -> Product<T> {
        // SAFETY: the caller's.
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

    /// How it runs by tiles.
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

    /// How it runs by these tiles.
    pub(super) fn plan_by(
        &self,
        loops: &Loops,
        tiles: &'static Tiles,
        blocking: &'static Blocking,
        threads: usize,
    ) -> Plan {
        let summed = self.summed(loops);
        let once = at_once(self.m, summed);
        // A's columns would be copied as many terms at a time, beside fewer panels.
        let deep = tiles.wide() && self.a_column == 1 && !once;
        let room = blocking.workspace / tiles.panel();
        let part = if deep { deep_part(self.k, summed, room, threads) } else { summed };
        Plan { tiles, summed, part, once, blocking, threads }
    }

    /// Terms that are summed in registers before they are added to C: the sizes alone decide, and the level, whichever of
    /// its tiles are taken.
    fn summed(&self, Loops { tiles, .. }: &Loops) -> usize {
        // Aᵀ·B of factors that have a row to each term.
        let by_terms = T::IS_F32 && self.a_row == 1 && self.b_column == 1;
        if by_terms && self.is_narrow(self.m, tiles) { summed_of_narrow(self.k) } else { summed_of(self.k) }
    }

    /// The product by tiles, A's rows being those that were copied, if any were.
    ///
    /// # Safety
    /// As `run`; `copied` are those of all its rows.
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
        // SAFETY: the caller's; blocks have no element of C in common.
        cut.run(|block| unsafe { self.task(loops, &block, self.kit(loops, plan, &block, copied)) });
    }

    /// Whether so many of its rows, or all of its columns, are few.
    fn is_narrow(&self, rows: usize, tiles: &Tiles) -> bool {
        rows <= IN_PLACE_TILES * tiles.rows() || self.n <= tiles.panel()
    }

    /// Rows of A that are copied apart for all tasks at a time, where they would evict one another from L1
    /// and there are tasks enough that read them.
    fn copied_at_a_time(&self, loops: &Loops) -> Option<usize> {
        let wanted = self.batch == 1 && self.aliased() && self.m > loops.tiles.rows() && self.n >= COLUMNS;
        let rows = COPIED / self.k;
        (wanted && rows >= self.m.min(FEWEST_ROWS)).then(|| self.m.div_ceil(self.m.div_ceil(rows)))
    }

    /// The product of which A is copied once for all tasks, `rows` at a time. Copied by each task for its columns, parts of
    /// as many terms, 512 × 4096 × 4096 and 512 × 8192 × 2048 took 4 and 5% longer, 4096 × 4096 × 4096 1%.
    ///
    /// # Safety
    /// As `run`.
    pub(super) unsafe fn run_copied(
        &self,
        loops: &'static Loops,
        blocking: &'static Blocking,
        rows: usize,
        threads: usize,
    ) {
        for row in (0..self.m).step_by(rows) {
            // SAFETY: the caller's.
            let some = unsafe { self.of_rows(0, row, rows.min(self.m - row)) };
            let plan = some.plan(loops, blocking, threads);
            let apart = apart(plan.part);
            let size = some.m * apart;
            shared(self.k.div_ceil(plan.part) * size, |space| {
                let to = Packed { at: space.as_mut_ptr(), together: 1, row: apart, part: size };
                // SAFETY: the caller's.
                unsafe {
                    some.lay(copy, to, plan.part, threads);
                    some.run_tiles(loops, &plan, Some(to));
                }
            });
        }
    }

    /// Rows fall on the same sets of L1.
    fn aliased(&self) -> bool {
        self.a_column == 1 && self.a_row.is_multiple_of(ALIASED)
    }

    /// The first part and the second as products of their own, where tiles do not take both: `few` rows may be
    /// no tiles, and a second part of many terms is summed in parts of its own.
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

    /// The loops of a task, and how they read their factors.
    fn kit(
        &self,
        loops: &'static Loops,
        &Plan { tiles, summed, blocking, .. }: &Plan,
        block: &Block,
        copied: Option<Packed>,
    ) -> Kit<'static, T::At> {
        // B in place where it lies as a panel does and is read too few times to pay for a copy.
        let in_place = T::IS_F32 && self.b_column == 1 && self.is_narrow(block.rows, tiles);
        // Where they are read more than once, A's rows are copied apart if they would evict one another from L1
        // (512 × 16 × 4096 took 1.0 ms with a copy and 0.8 without, by AVX2 0.8 and 0.6), and its columns if each
        // term's few elements are in a line of their own.
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
        // SAFETY: the caller's.
        Left { at: unsafe { self.a.add(at) }, row: self.a_row, k: self.a_column }
    }

    /// What becomes of a tile's sums at `row` and `column`: a later part of K is added to the first,
    /// which the bias is added to.
    pub(super) unsafe fn epilogue_at(
        &self,
        block: &Block,
        row: usize,
        column: usize,
        first: bool,
    ) -> Epilogue {
        let bias =
            // SAFETY: the caller's.
            if first && !self.bias.is_null() { unsafe { self.bias.add(column) } } else { std::ptr::null() };
        Epilogue {
            // SAFETY: the caller's.
            c: unsafe { self.c.add(block.z * self.c_batch + row * self.c_row + column) },
            row: self.c_row,
            alpha: self.alpha,
            bias,
            accumulate: self.accumulate || !first,
        }
    }
}
