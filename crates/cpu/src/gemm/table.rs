//! The compiled kernels: one table for each instruction set, and the table of this processor.

use std::sync::OnceLock;

use half::{bf16, f16};

use super::arguments::{
    ArrangedRow, DotKernel, DotProducts, Element, Left, MAX_GEMV_ROWS, PackA, PackB, Position, Source, Strip,
    StripKernel, Sums, TileProduct,
};
use super::blocking::MAX_REGISTER_KC;
use super::gemv::dot::{self, ONE_ROW_CHAINS};
use super::microkernel;
#[cfg(target_arch = "x86_64")]
use super::microkernel::amx;
#[cfg(target_arch = "aarch64")]
use super::microkernel::bfmmla;
use super::microkernel::prefetch::Prefetch;
use super::microkernel::tiles::{Tiles, variants};
#[cfg(target_arch = "x86_64")]
use super::pack::pairs;
use super::pack::{a, b};
use super::quantised::{self, BlockPointer, Blocks};
use crate::simd::{Level, compiled, level};

/// The kernels for one storage type of B.
pub struct StorageKernels<P> {
    pub pack: PackB<P>,
    /// By rows − 1.
    pub dots: [DotKernel<P>; MAX_GEMV_ROWS],
    pub strip: StripKernel<P>,
}

/// The kernels of products by bf16 weights whose other factor is rounded to bf16.
pub struct RoundedKernels {
    /// Terms per element of a packed factor: two for pairs of bf16, one for widened bf16.
    pub terms_per_element: usize,
    /// Term granularity: packed factors are padded to a multiple.
    pub term_granularity: usize,
    /// Most terms that are summed in registers.
    pub register_kc: usize,
    /// Rounds and packs rows of A.
    pub pack_a: PackA,
    pub pack_b: PackB<*const bf16>,
    pub tiles: Tiles,
}

/// The kernels of one instruction set.
pub struct KernelTable {
    /// The name of the level, for messages of tests.
    pub name: &'static str,
    pub lanes: usize,
    pub tiles: Tiles,
    /// Tiles of three vectors for wide f32 products, where they are faster.
    pub wide: Option<Tiles>,
    pub f32: StorageKernels<*const f32>,
    pub f16: StorageKernels<*const f16>,
    pub bf16: StorageKernels<*const bf16>,
    pub blocks: StorageKernels<BlockPointer>,
    pub level: Level,
    /// The instruction set of exact products.
    pub exact: Level,
    pub rounded: RoundedKernels,
}

impl KernelTable {
    /// The panel width, in columns: the width of the widest tile of two vectors.
    #[inline]
    pub fn panel(&self) -> usize {
        self.tiles.panel()
    }

    /// Runs the microkernel for a tile, which is at most the largest.
    ///
    /// # Safety
    /// As for `microkernel::compute_tile`.
    #[inline]
    pub unsafe fn run_tile(&self, t: &TileProduct) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.tiles.find(t)(t, &mut Prefetch::none()) };
    }
}

/// A storage type of B: its positions and its kernels.
pub trait Storage: Copy + 'static {
    const IS_F32: bool = false;
    type Position: Position;
    fn kernels(table: &KernelTable) -> &StorageKernels<Self::Position>;
    /// The arrangement of a row of A of `k` terms for dot products with rows of B (stride `step`), if they need one.
    fn find_arrangement(_b: Self::Position, _k: usize, _step: usize) -> Option<ArrangedRow<Self::Position>> {
        None
    }
}

impl Storage for Blocks {
    type Position = BlockPointer;
    fn kernels(table: &KernelTable) -> &StorageKernels<BlockPointer> {
        &table.blocks
    }
    fn find_arrangement(b: BlockPointer, k: usize, step: usize) -> Option<ArrangedRow<BlockPointer>> {
        b.find_arrangement(k, step)
    }
}

impl Storage for f32 {
    const IS_F32: bool = true;
    type Position = *const f32;
    #[inline]
    fn kernels(table: &KernelTable) -> &StorageKernels<*const f32> {
        &table.f32
    }
}

impl Storage for f16 {
    type Position = *const f16;
    #[inline]
    fn kernels(table: &KernelTable) -> &StorageKernels<*const f16> {
        &table.f16
    }
}

impl Storage for bf16 {
    type Position = *const bf16;
    #[inline]
    fn kernels(table: &KernelTable) -> &StorageKernels<*const bf16> {
        &table.bf16
    }
}

compiled! {
    paired fn compute_tile[; ROWS: usize, VECTORS: usize, MASKED: bool](
        t: &TileProduct, ahead: &mut Prefetch
    ) {
        debug_assert_eq!(t.rows, ROWS);
        assert!(ROWS * VECTORS.max(2) <= 2 * S::ROWS, "a tile has more rows than the registers hold");
        // SAFETY: guaranteed by the caller.
        unsafe { microkernel::compute_tile::<S, ROWS, VECTORS, MASKED>(t, ahead) }
    }
}

compiled! {
    exact fn find_lanes_and_rows() -> [usize; 2] {
        [S::WIDTH, S::ROWS]
    }

    fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { a::round(a, rows, k, to, to_row) }
    }

    fn pack[T: Element](b: Source<*const T>, k: usize, width: usize, panel: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { b::pack::<S::V, T>(b, k, width, panel, to) }
    }

    fn compute_dots[T: Element; ROWS: usize, CHAINS: usize](d: DotProducts<*const T>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { dot::compute_dots::<S::V, T, ROWS, CHAINS>(d, sums) }
    }

    fn multiply_strip[T: Element](s: Strip<*const T>) {
        // SAFETY: guaranteed by the caller.
        unsafe { dot::multiply_strip::<S::V, T>(s) }
    }

    fn pack_blocks(b: Source<BlockPointer>, k: usize, width: usize, panel: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { quantised::pack::<S::V>(b, k, width, panel, to) }
    }

    fn dot_blocks[; ROWS: usize, CHAINS: usize](d: DotProducts<BlockPointer>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { quantised::compute_dots::<S::V, ROWS, CHAINS>(d, sums) }
    }

    fn multiply_block_strip(s: Strip<BlockPointer>) {
        // SAFETY: guaranteed by the caller.
        unsafe { quantised::multiply_strip::<S::V>(s) }
    }
}

fn make_tiles(level: Level) -> Tiles {
    // SAFETY: `level` is at most the process's level, so the processor has its instructions.
    let [lanes, rows] = unsafe { find_lanes_and_rows(level)() };
    Tiles::new(&variants!(2, compute_tile(level))[..rows], 1, lanes, None)
}

/// Tiles of three vectors and fewer rows, for instruction sets with 32 registers of 16 lanes and a large L2.
///
/// They leave rows to the hardware prefetcher: the rows of A, and the rows of a row-major B. All panels of a row-major
/// B are packed at once per task, since its rows would evict one another from L2 if they were prefetched.
fn make_wide_tiles(level: Level) -> Option<Tiles> {
    // SAFETY: as in `make_tiles`.
    let [lanes, rows] = unsafe { find_lanes_and_rows(level)() };
    (lanes == 16).then(|| Tiles::new(&variants!(3, compute_tile(level))[..2 * rows / 3], 1, lanes, None))
}

/// Dot-product kernels by rows, with as many accumulator chains as the registers allow.
macro_rules! by_rows {
    ($dots:ident [$($element:ident)?] $level:ident) => {
        [
            $dots::<$($element,)? 1, ONE_ROW_CHAINS>($level),
            $dots::<$($element,)? 2, 2>($level),
            $dots::<$($element,)? 3, 2>($level),
            $dots::<$($element,)? 4, 1>($level),
            $dots::<$($element,)? 5, 1>($level),
            $dots::<$($element,)? 6, 1>($level),
            $dots::<$($element,)? 7, 1>($level),
            $dots::<$($element,)? 8, 1>($level),
        ]
    };
}

impl<T: Element> StorageKernels<*const T> {
    fn of(level: Level) -> StorageKernels<*const T> {
        StorageKernels {
            pack: pack::<T>(level),
            dots: by_rows!(compute_dots [T] level),
            strip: multiply_strip::<T>(level),
        }
    }
}

impl StorageKernels<BlockPointer> {
    fn for_blocks(level: Level) -> StorageKernels<BlockPointer> {
        StorageKernels {
            pack: pack_blocks(level),
            dots: by_rows!(dot_blocks [] level),
            strip: multiply_block_strip(level),
        }
    }
}

impl RoundedKernels {
    fn of(level: Level) -> RoundedKernels {
        #[cfg(target_arch = "x86_64")]
        if level == Level::Avx512Bf16 {
            let (pack_a, pack_b): (PackA, PackB<*const bf16>) = (pairs::pack_a, pairs::pack_b);
            return RoundedKernels {
                terms_per_element: 2,
                term_granularity: 2,
                register_kc: MAX_REGISTER_KC,
                pack_a,
                pack_b,
                tiles: make_tiles(level),
            };
        }
        #[cfg(target_arch = "x86_64")]
        if level == Level::Amx {
            let (pack_a, pack_b): (PackA, PackB<*const bf16>) = (amx::pack_a, amx::pack_b);
            let (term_granularity, register_kc) = (amx::TERMS, amx::MAX_REGISTER_KC);
            return RoundedKernels {
                terms_per_element: 2,
                term_granularity,
                register_kc,
                pack_a,
                pack_b,
                tiles: amx::make_tiles(),
            };
        }
        #[cfg(target_arch = "aarch64")]
        if level == Level::NeonBf16 {
            let (pack_a, pack_b): (PackA, PackB<*const bf16>) = (bfmmla::pack_a, bfmmla::pack_b);
            return RoundedKernels {
                terms_per_element: 2,
                term_granularity: bfmmla::TERMS,
                register_kc: MAX_REGISTER_KC,
                pack_a,
                pack_b,
                tiles: bfmmla::make_tiles(),
            };
        }
        let (pack_a, pack_b) = (round(level), pack::<bf16>(level));
        RoundedKernels {
            terms_per_element: 1,
            term_granularity: 1,
            register_kc: MAX_REGISTER_KC,
            pack_a,
            pack_b,
            tiles: make_tiles(level),
        }
    }
}

impl KernelTable {
    /// The kernels of `level`, which is at most the process's level.
    pub fn of(level: Level) -> KernelTable {
        let exact = level.exact();
        let tiles = make_tiles(exact);
        KernelTable {
            name: level.name(),
            lanes: tiles.panel() / 2,
            tiles,
            wide: make_wide_tiles(exact),
            f32: StorageKernels::of(exact),
            f16: StorageKernels::of(exact),
            bf16: StorageKernels::of(exact),
            blocks: StorageKernels::for_blocks(exact),
            level,
            exact,
            rounded: RoundedKernels::of(level),
        }
    }
}

/// The tables that this processor can run, for tests of every one.
pub fn available_tables() -> &'static [KernelTable] {
    static AVAILABLE: OnceLock<Vec<KernelTable>> = OnceLock::new();
    AVAILABLE.get_or_init(|| crate::simd::level::usable_levels().map(KernelTable::of).collect())
}

/// The kernels of the process's level.
#[inline]
pub fn current_table() -> &'static KernelTable {
    static BEST: OnceLock<KernelTable> = OnceLock::new();
    BEST.get_or_init(|| KernelTable::of(level()))
}
