//! The compiled kernels: one table for each instruction set, and the table of this processor.

use std::sync::OnceLock;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "aarch64")]
use super::bfmmla;
use super::blocks::{self, Blocks, Place};
use super::dot::{self, DotProducts, FEW, ONE, Sums};
use super::lay::Make;
use super::microkernel::{self, Left, TileProduct};
use super::pack::{self, At, Element, Source};
#[cfg(target_arch = "x86_64")]
use super::pairs;
use super::prefetch::Prefetch;
use super::rounded;
use super::terms::SUMMED;
use super::tiles::{Tiles, forms};
use crate::quant::Layout;
use crate::quant::coded::{Arrangement, Coded, InBytes, InF32, as_bytes};
use crate::simd::{Level, compiled, level};

pub type Dots<P> = unsafe fn(DotProducts<P>, &mut Sums);
type Strip<P> = unsafe fn(dot::Strip<P>);
pub type Pack<P> = unsafe fn(Source<P>, usize, usize, usize, *mut f32);

/// The kernels for one storage type of B.
pub struct Storage<P> {
    pub pack: Pack<P>,
    /// By rows − 1.
    pub dots: [Dots<P>; FEW],
    pub strip: Strip<P>,
}

/// The kernels of products by bf16 weights whose other factor is rounded to bf16.
pub struct Rounded {
    /// Terms per element of a packed factor: two for pairs of bf16, one for widened bf16.
    pub terms: usize,
    /// Term granularity: packed factors are padded to a multiple.
    pub whole: usize,
    /// Most terms that are summed in registers.
    pub summed: usize,
    /// Rounds and packs rows of A.
    pub left: Make,
    pub right: Pack<*const bf16>,
    pub tiles: Tiles,
}

/// The kernels of one instruction set.
pub struct Loops {
    /// For messages of tests.
    #[cfg_attr(not(test), allow(dead_code))]
    pub name: &'static str,
    pub lanes: usize,
    pub tiles: Tiles,
    /// Tiles of three vectors for wide f32 products, where they are faster.
    pub wide: Option<Tiles>,
    pub f32: Storage<*const f32>,
    pub f16: Storage<*const f16>,
    pub bf16: Storage<*const bf16>,
    pub blocks: Storage<Place>,
    pub level: Level,
    /// The instruction set of exact products.
    pub exact: Level,
    pub rounded: Rounded,
}

impl Loops {
    /// The panel width, in columns: the width of the widest tile of two vectors.
    pub fn panel(&self) -> usize {
        self.tiles.panel()
    }

    /// Runs the microkernel for a tile, which is at most the largest.
    ///
    /// # Safety
    /// As for `microkernel::tile`.
    pub unsafe fn tile(&self, t: &TileProduct) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.tiles.of(t)(t, &mut Prefetch::nothing()) };
    }
}

/// The kernel `dots` for one row of A in the arrangement that it needs.
#[derive(Clone, Copy)]
pub struct Arranged<P> {
    pub arrangement: Arrangement,
    pub dots: Dots<P>,
}

/// A storage type of B: its positions and its kernels.
pub trait Stored: Copy + 'static {
    const IS_F32: bool = false;
    type At: At;
    fn loops(loops: &Loops) -> &Storage<Self::At>;
    /// The arrangement of a row of A of `k` terms for dot products with rows of B (stride `step`), if they need one.
    fn arranged(_b: Self::At, _k: usize, _step: usize) -> Option<Arranged<Self::At>> {
        None
    }
}

impl Stored for Blocks {
    type At = Place;
    fn loops(loops: &Loops) -> &Storage<Place> {
        &loops.blocks
    }
    fn arranged(b: Place, k: usize, step: usize) -> Option<Arranged<Place>> {
        b.arranged(k, step)
    }
}

impl Stored for f32 {
    const IS_F32: bool = true;
    type At = *const f32;
    fn loops(loops: &Loops) -> &Storage<*const f32> {
        &loops.f32
    }
}

impl Stored for f16 {
    type At = *const f16;
    fn loops(loops: &Loops) -> &Storage<*const f16> {
        &loops.f16
    }
}

impl Stored for bf16 {
    type At = *const bf16;
    fn loops(loops: &Loops) -> &Storage<*const bf16> {
        &loops.bf16
    }
}

compiled! {
    paired fn tile[; ROWS: usize, VECTORS: usize, MASKED: bool](t: &TileProduct, ahead: &mut Prefetch) {
        debug_assert_eq!(t.rows, ROWS);
        assert!(ROWS * VECTORS.max(2) <= 2 * S::ROWS, "a tile has more rows than the registers hold");
        // SAFETY: guaranteed by the caller.
        unsafe { microkernel::tile::<S, ROWS, VECTORS, MASKED>(t, ahead) }
    }

    pub(super) fn dots_of_coded[B: Coded](d: DotProducts<Place>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            if as_bytes::<S, B>() {
                blocks::dots_as_they_lie::<S, InBytes, B>(d, sums)
            } else {
                blocks::dots_as_they_lie::<S, InF32, B>(d, sums)
            }
        }
    }
}

compiled! {
    exact fn lanes_and_rows() -> [usize; 2] {
        [S::WIDTH, S::ROWS]
    }

    fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { rounded::round(a, rows, k, to, to_row) }
    }

    fn pack[T: Element](b: Source<*const T>, k: usize, width: usize, panel: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { pack::pack::<S::V, T>(b, k, width, panel, to) }
    }

    fn dots[T: Element; ROWS: usize, CHAINS: usize](d: DotProducts<*const T>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { dot::dots::<S::V, T, ROWS, CHAINS>(d, sums) }
    }

    fn strip[T: Element](s: dot::Strip<*const T>) {
        // SAFETY: guaranteed by the caller.
        unsafe { dot::strip::<S::V, T>(s) }
    }

    fn pack_blocks(b: Source<Place>, k: usize, width: usize, panel: usize, to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { blocks::pack::<S::V>(b, k, width, panel, to) }
    }

    fn dots_of_blocks[; ROWS: usize, CHAINS: usize](d: DotProducts<Place>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { blocks::dots::<S::V, ROWS, CHAINS>(d, sums) }
    }

    pub(super) fn dots_of_layout[B: Layout](d: DotProducts<Place>, sums: &mut Sums) {
        // SAFETY: guaranteed by the caller.
        unsafe { blocks::dots_of_one::<S, B>(d, sums) }
    }

    fn strip_of_blocks(s: dot::Strip<Place>) {
        // SAFETY: guaranteed by the caller.
        unsafe { blocks::strip::<S::V>(s) }
    }
}

fn tiles(level: Level) -> Tiles {
    // SAFETY: `level` is at most the process's level, so the processor has its instructions.
    let [lanes, rows] = unsafe { lanes_and_rows(level)() };
    Tiles::new(&forms!(2, tile(level))[..rows], 1, lanes, None)
}

/// Tiles of three vectors and fewer rows, for instruction sets with 32 registers of 16 lanes and a large L2.
///
/// They leave rows to the hardware prefetcher: the rows of A, and the rows of a row-major B. All panels of a row-major
/// B are packed at once per task, since its rows would evict one another from L2 if they were prefetched.
fn wide(level: Level) -> Option<Tiles> {
    // SAFETY: as in `tiles`.
    let [lanes, rows] = unsafe { lanes_and_rows(level)() };
    (lanes == 16).then(|| Tiles::new(&forms!(3, tile(level))[..2 * rows / 3], 1, lanes, None))
}

/// Dot-product kernels by rows, with as many accumulator chains as the registers allow.
macro_rules! by_rows {
    ($dots:ident [$($element:ident)?] $level:ident) => {
        [
            $dots::<$($element,)? 1, ONE>($level),
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

impl<T: Element> Storage<*const T> {
    fn of(level: Level) -> Storage<*const T> {
        Storage { pack: pack::<T>(level), dots: by_rows!(dots [T] level), strip: strip::<T>(level) }
    }
}

impl Storage<Place> {
    fn of_blocks(level: Level) -> Storage<Place> {
        Storage {
            pack: pack_blocks(level),
            dots: by_rows!(dots_of_blocks [] level),
            strip: strip_of_blocks(level),
        }
    }
}

impl Rounded {
    fn of(level: Level) -> Rounded {
        #[cfg(target_arch = "x86_64")]
        if level == Level::Avx512Bf16 {
            let (left, right): (Make, Pack<*const bf16>) = (pairs::left, pairs::right);
            return Rounded { terms: 2, whole: 2, summed: SUMMED, left, right, tiles: tiles(level) };
        }
        #[cfg(target_arch = "x86_64")]
        if level == Level::Amx {
            let (left, right): (Make, Pack<*const bf16>) = (amx::left, amx::right);
            let (whole, summed) = (amx::TERMS, amx::SUMMED);
            return Rounded { terms: 2, whole, summed, left, right, tiles: amx::tiles() };
        }
        #[cfg(target_arch = "aarch64")]
        if level == Level::NeonBf16 {
            let (left, right): (Make, Pack<*const bf16>) = (bfmmla::left, bfmmla::right);
            return Rounded {
                terms: 2,
                whole: bfmmla::TERMS,
                summed: SUMMED,
                left,
                right,
                tiles: bfmmla::tiles(),
            };
        }
        let (left, right) = (round(level), pack::<bf16>(level));
        Rounded { terms: 1, whole: 1, summed: SUMMED, left, right, tiles: tiles(level) }
    }
}

impl Loops {
    /// The kernels of `level`, which is at most the process's level.
    pub fn of(level: Level) -> Loops {
        let exact = level.exact();
        let tiles = tiles(exact);
        Loops {
            name: level.name(),
            lanes: tiles.panel() / 2,
            tiles,
            wide: wide(exact),
            f32: Storage::of(exact),
            f16: Storage::of(exact),
            bf16: Storage::of(exact),
            blocks: Storage::of_blocks(exact),
            level,
            exact,
            rounded: Rounded::of(level),
        }
    }
}

/// The tables that this processor can run.
#[cfg(test)]
pub fn available() -> &'static [Loops] {
    static AVAILABLE: OnceLock<Vec<Loops>> = OnceLock::new();
    AVAILABLE.get_or_init(|| crate::simd::level::tried().map(Loops::of).collect())
}

/// The kernels of the process's level.
pub fn best() -> &'static Loops {
    static BEST: OnceLock<Loops> = OnceLock::new();
    BEST.get_or_init(|| Loops::of(level()))
}
