//! The compiled forms of the inner loops, one set an instruction set, and which one this processor
//! runs.

use std::sync::OnceLock;

use half::{bf16, f16};

#[cfg(target_arch = "aarch64")]
use super::bfmmla;
use super::blocks::{self, Blocks, Place};
use super::dot::{self, COLUMNS, FEW, ONE};
use super::microkernel::{self, Left, More, Right, Settle};
use super::pack::{self, At, Element, Source};
#[cfg(target_arch = "x86_64")]
use super::pairs;
use super::prefetch::Prefetch;
use super::rounded;
use crate::quant::Layout;
use crate::simd::{Level, compiled, level};

pub type Tile = unsafe fn(usize, usize, Left, Right, usize, Settle, Option<&More>, &mut Prefetch);

pub type Dots<P> = unsafe fn(usize, Left, P, usize, usize, &mut [[f32; COLUMNS]; FEW]);
type Strip<P> = unsafe fn(dot::Strip<P>);
pub type Pack<P> = unsafe fn(Source<P>, usize, usize, usize, *mut f32);
pub type Round = unsafe fn(Left, usize, usize, *mut f32, usize);

/// The tiles of a kind of products.
pub struct Tiles {
    /// By rows − 1: one vector, one masked, two vectors, two of which the second is masked. Each is told its rows.
    forms: Vec<[Tile; 4]>,
    /// Rows that tiles come in: one of fewer takes as long as one of the next multiple.
    pub step: usize,
    lanes: usize,
}

impl Tiles {
    pub fn new(forms: Vec<[Tile; 4]>, step: usize, lanes: usize) -> Tiles {
        Tiles { forms, step, lanes }
    }

    /// Rows of the largest.
    pub fn rows(&self) -> usize {
        self.forms.len()
    }

    /// Columns of a panel of B, and of the widest.
    pub fn panel(&self) -> usize {
        2 * self.lanes
    }

    /// That of `rows` × `width`.
    pub fn of(&self, rows: usize, width: usize) -> Tile {
        let form = 2 * (width > self.lanes) as usize + !width.is_multiple_of(self.lanes) as usize;
        self.forms[rows - 1][form]
    }
}

/// The loops for one type of storage.
pub struct Storage<P> {
    pub pack: Pack<P>,
    /// By rows − 1.
    pub dots: [Dots<P>; FEW],
    pub strip: Strip<P>,
}

/// The loops of products by bf16 whose other factor is rounded to it, too.
pub struct Rounded {
    /// Terms in an element of a packed factor: a pair of bf16, or one that is widened.
    pub terms: usize,
    /// Terms that products take at once: packed factors have as many, or a multiple.
    pub whole: usize,
    /// Rounds rows of A into elements.
    pub left: Round,
    pub right: Pack<*const bf16>,
    pub tiles: Tiles,
}

/// The loops of one instruction set.
pub struct Loops {
    /// For the messages of tests.
    #[cfg_attr(not(test), allow(dead_code))]
    pub name: &'static str,
    pub lanes: usize,
    pub tiles: Tiles,
    pub f32: Storage<*const f32>,
    pub f16: Storage<*const f16>,
    pub bf16: Storage<*const bf16>,
    pub blocks: Storage<Place>,
    /// The level of exact products, and of unpacking blocks.
    pub exact: Level,
    pub rounded: Rounded,
}

impl Loops {
    /// Columns of a panel of B, and of the widest tile.
    pub fn panel(&self) -> usize {
        self.tiles.panel()
    }

    /// A tile of `rows` × `width`, at most the largest.
    ///
    /// # Safety
    /// As `microkernel::tile`.
    pub unsafe fn tile(&self, rows: usize, k: usize, a: Left, b: Right, width: usize, settle: Settle) {
        let tile = self.tiles.of(rows, width);
        // SAFETY: the caller's.
        unsafe { tile(rows, k, a, b, width, settle, None, &mut Prefetch::nothing()) };
    }
}

/// What a stored type is packed and multiplied by.
pub trait Stored: Copy + 'static {
    const IS_F32: bool = false;
    type At: At;
    fn loops(loops: &Loops) -> &Storage<Self::At>;
}

impl Stored for Blocks {
    type At = Place;
    fn loops(loops: &Loops) -> &Storage<Place> {
        &loops.blocks
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
    paired fn tile[; ROWS: usize, VECTORS: usize, MASKED: bool](
        rows: usize,
        k: usize,
        a: Left,
        b: Right,
        width: usize,
        settle: Settle,
        more: Option<&More>,
        ahead: &mut Prefetch,
    ) {
        debug_assert_eq!(rows, ROWS);
        assert!(ROWS <= S::ROWS, "a tile has more rows than the registers hold");
        // SAFETY: the caller's.
        unsafe { microkernel::tile::<S, ROWS, VECTORS, MASKED>(k, a, b, width, settle, more, ahead) }
    }
}

compiled! {
    exact fn lanes_and_rows() -> [usize; 2] {
        [S::WIDTH, S::ROWS]
    }

    fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
        // SAFETY: the caller's.
        unsafe { rounded::round(a, rows, k, to, to_row) }
    }

    fn pack[T: Element](b: Source<*const T>, k: usize, width: usize, panel: usize, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { pack::pack::<S::V, T>(b, k, width, panel, to) }
    }

    fn dots[T: Element; ROWS: usize, CHAINS: usize](
        k: usize,
        a: Left,
        w: *const T,
        step: usize,
        columns: usize,
        sums: &mut [[f32; COLUMNS]; FEW],
    ) {
        // SAFETY: the caller's.
        unsafe { dot::dots::<S::V, T, ROWS, CHAINS>(k, a, w, step, columns, sums) }
    }

    fn strip[T: Element](s: dot::Strip<*const T>) {
        // SAFETY: the caller's.
        unsafe { dot::strip::<S::V, T>(s) }
    }

    fn pack_blocks(b: Source<Place>, k: usize, width: usize, panel: usize, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { blocks::pack::<S::V>(b, k, width, panel, to) }
    }

    fn dots_of_blocks[; ROWS: usize, CHAINS: usize](
        k: usize,
        a: Left,
        w: Place,
        step: usize,
        columns: usize,
        sums: &mut [[f32; COLUMNS]; FEW],
    ) {
        // SAFETY: the caller's.
        unsafe { blocks::dots::<S::V, ROWS, CHAINS>(k, a, w, step, columns, sums) }
    }

    pub(super) fn dots_of_layout[B: Layout](
        k: usize,
        a: Left,
        w: Place,
        step: usize,
        columns: usize,
        sums: &mut [[f32; COLUMNS]; FEW],
    ) {
        // SAFETY: the caller's.
        unsafe { blocks::dots_of_one::<S, B>(k, a, w, step, columns, sums) }
    }

    fn strip_of_blocks(s: dot::Strip<Place>) {
        // SAFETY: the caller's.
        unsafe { blocks::strip::<S::V>(s) }
    }
}

/// Forms of tiles by rows, up to those of the set that has most; `$level` is what the forms are asked for.
macro_rules! forms {
    ($tile:ident $($level:tt)*) => {
        $crate::kernels::gemm::native::loops::forms!(@ $tile [$($level)*] 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $tile:ident $level:tt $($rows:literal)*) => {
        [$($crate::kernels::gemm::native::loops::forms!(# $tile $level $rows)),*]
    };
    (# $tile:ident [$($level:tt)*] $rows:literal) => {
        [
            $tile::<$rows, 1, false> $($level)*,
            $tile::<$rows, 1, true> $($level)*,
            $tile::<$rows, 2, false> $($level)*,
            $tile::<$rows, 2, true> $($level)*,
        ]
    };
}
pub(super) use forms;

fn tiles(level: Level) -> Tiles {
    // SAFETY: it runs none of the level's instructions that the processor has not, see `available`.
    let [lanes, rows] = unsafe { lanes_and_rows(level)() };
    Tiles::new(forms!(tile(level))[..rows].to_vec(), 1, lanes)
}

/// Forms of dot products by rows, with as many chains as leave registers to the rows.
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
            let (left, right): (Round, Pack<*const bf16>) = (pairs::left, pairs::right);
            return Rounded { terms: 2, whole: 2, left, right, tiles: tiles(level) };
        }
        #[cfg(target_arch = "aarch64")]
        if level == Level::NeonBf16 {
            let (left, right): (Round, Pack<*const bf16>) = (bfmmla::left, bfmmla::right);
            return Rounded { terms: 2, whole: bfmmla::TERMS, left, right, tiles: bfmmla::tiles() };
        }
        Rounded { terms: 1, whole: 1, left: round(level), right: pack::<bf16>(level), tiles: tiles(level) }
    }
}

impl Loops {
    fn of(level: Level) -> Loops {
        let exact = level.exact();
        let tiles = tiles(exact);
        Loops {
            name: level.name(),
            lanes: tiles.lanes,
            tiles,
            f32: Storage::of(exact),
            f16: Storage::of(exact),
            bf16: Storage::of(exact),
            blocks: Storage::of_blocks(exact),
            exact,
            rounded: Rounded::of(level),
        }
    }
}

/// Those that this processor runs, the best first.
pub fn available() -> &'static [Loops] {
    static AVAILABLE: OnceLock<Vec<Loops>> = OnceLock::new();
    AVAILABLE.get_or_init(|| {
        let levels = Level::ALL.iter().rev().filter(|one| **one <= level());
        levels.map(|one| Loops::of(*one)).collect()
    })
}

pub fn best() -> &'static Loops {
    &available()[0]
}
