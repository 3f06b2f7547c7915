//! The compiled forms of the inner loops, one set an instruction set, and which one this processor
//! runs.

use std::sync::OnceLock;

use half::{bf16, f16};

use super::ahead::Ahead;
use super::dot::{self, COLUMNS, FEW};
use super::pack::{self, Element, Source};
#[cfg(target_arch = "x86_64")]
use super::pairs::{self, Pair};
use super::rounded;
use super::tile::{self, Left, More, Right, Settle, Single};
use crate::simd::{Lanes, Level, Plain, level};

type Tile = unsafe fn(usize, Left, Right, usize, Settle, Option<&More>, &mut Ahead);

type Dots<T> = unsafe fn(usize, Left, *const T, usize, usize, &mut [[f32; COLUMNS]; FEW]);
type Strip<T> = unsafe fn(dot::Strip<T>);
pub type Pack<T> = unsafe fn(Source<T>, usize, usize, usize, *mut f32);
pub type Round = unsafe fn(Left, usize, usize, *mut f32, usize);
/// By rows − 1: one vector, one masked, two vectors, two of which the second is masked.
pub type Tiles = &'static [[Tile; 4]];

/// The loops for one type of storage.
pub struct Storage<T> {
    pub pack: Pack<T>,
    /// By rows − 1.
    pub dots: [Dots<T>; FEW],
    pub strip: Strip<T>,
}

/// The loops of products by bf16 whose other factor is rounded to it, too.
pub struct Rounded {
    /// Terms in an element of a packed factor: a pair of bf16, or one that is widened.
    pub terms: usize,
    /// Rounds rows of A into elements.
    pub left: Round,
    pub right: Pack<bf16>,
    pub tiles: Tiles,
}

/// The loops of one instruction set.
pub struct Loops {
    /// For the messages of tests.
    #[cfg_attr(not(test), allow(dead_code))]
    pub name: &'static str,
    pub lanes: usize,
    /// Rows of the largest tile.
    pub rows: usize,
    pub tiles: Tiles,
    pub f32: Storage<f32>,
    pub f16: Storage<f16>,
    pub bf16: Storage<bf16>,
    pub rounded: Rounded,
}

impl Loops {
    /// Columns of a panel of B, and of the widest tile.
    pub fn panel(&self) -> usize {
        2 * self.lanes
    }

    /// A tile of `rows` × `width`, at most the largest.
    ///
    /// # Safety
    /// As `tile::tile`.
    pub unsafe fn tile(&self, rows: usize, k: usize, a: Left, b: Right, width: usize, settle: Settle) {
        let form = self.form(width);
        unsafe { (self.tiles[rows - 1][form])(k, a, b, width, settle, None, &mut Ahead::nothing()) };
    }

    pub fn form(&self, width: usize) -> usize {
        2 * (width > self.lanes) as usize + !width.is_multiple_of(self.lanes) as usize
    }
}

/// What a stored type is packed and multiplied by.
pub trait Stored: Element + Send + Sync + 'static {
    fn loops(loops: &Loops) -> &Storage<Self>;
}

impl Stored for f32 {
    fn loops(loops: &Loops) -> &Storage<f32> {
        &loops.f32
    }
}

impl Stored for f16 {
    fn loops(loops: &Loops) -> &Storage<f16> {
        &loops.f16
    }
}

impl Stored for bf16 {
    fn loops(loops: &Loops) -> &Storage<bf16> {
        &loops.bf16
    }
}

/// The function `tile`, compiled for an instruction set.
macro_rules! tile {
    ($lanes:ty, $term:ty, $(#[$feature:meta])?) => {
        $(#[$feature])?
        unsafe fn tile<const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
            k: usize,
            a: Left,
            b: Right,
            width: usize,
            settle: Settle,
            more: Option<&More>,
            ahead: &mut Ahead,
        ) {
            unsafe { tile::tile::<$lanes, $term, ROWS, VECTORS, MASKED>(k, a, b, width, settle, more, ahead) }
        }
    };
}

/// Its forms by rows.
macro_rules! tiles {
    ([$($rows:literal)*]) => {
        &[$([tile::<$rows, 1, false>, tile::<$rows, 1, true>, tile::<$rows, 2, false>, tile::<$rows, 2, true>]),*]
    };
}

macro_rules! loops {
    ($module:ident, $name:literal, $lanes:ty, $(#[$feature:meta])? [$($rows:literal)*]) => {
        mod $module {
            use super::*;

            tile!($lanes, Single, $(#[$feature])?);

            $(#[$feature])?
            unsafe fn round(a: Left, rows: usize, k: usize, to: *mut f32, to_row: usize) {
                unsafe { rounded::round(a, rows, k, to, to_row) }
            }

            $(#[$feature])?
            unsafe fn pack<T: Element>(b: Source<T>, k: usize, width: usize, panel: usize, to: *mut f32) {
                unsafe { pack::pack::<$lanes, T>(b, k, width, panel, to) }
            }

            $(#[$feature])?
            unsafe fn dots<T: Element, const ROWS: usize, const CHAINS: usize>(
                k: usize,
                a: Left,
                w: *const T,
                step: usize,
                columns: usize,
                sums: &mut [[f32; COLUMNS]; FEW],
            ) {
                unsafe { dot::dots::<$lanes, T, ROWS, CHAINS>(k, a, w, step, columns, sums) }
            }

            $(#[$feature])?
            unsafe fn strip<T: Element>(s: dot::Strip<T>) {
                unsafe { dot::strip::<$lanes, T>(s) }
            }

            const fn storage<T: Element>() -> Storage<T> {
                Storage {
                    pack: pack::<T>,
                    dots: [
                        dots::<T, 1, 4>,
                        dots::<T, 2, 2>,
                        dots::<T, 3, 2>,
                        dots::<T, 4, 1>,
                        dots::<T, 5, 1>,
                        dots::<T, 6, 1>,
                        dots::<T, 7, 1>,
                        dots::<T, 8, 1>,
                    ],
                    strip: strip::<T>,
                }
            }

            const TILES: Tiles = tiles!([$($rows)*]);

            pub const SET: Loops = Loops {
                name: $name,
                lanes: <$lanes>::LANES,
                rows: <$lanes>::ROWS,
                tiles: TILES,
                f32: storage(),
                f16: storage(),
                bf16: storage(),
                rounded: Rounded { terms: 1, left: round, right: pack::<bf16>, tiles: TILES },
            };
            pub static LOOPS: Loops = SET;
        }
    };
}

#[cfg(target_arch = "x86_64")]
loops!(avx512, "AVX-512", std::arch::x86_64::__m512, #[target_feature(enable = "avx512f")] [1 2 3 4 5 6 7 8 9 10 11 12]);
#[cfg(target_arch = "x86_64")]
loops!(avx2, "AVX2", std::arch::x86_64::__m256, #[target_feature(enable = "avx2,fma,f16c")] [1 2 3 4 5 6]);
loops!(plain, "plain", Plain, [1 2 3 4 5 6]);

/// AVX-512 with dot products of bf16 pairs.
#[cfg(target_arch = "x86_64")]
mod avx512_bf16 {
    use std::arch::x86_64::__m512;

    use super::*;

    tile!(__m512, Pair, #[target_feature(enable = "avx512f,avx512bf16")]);

    pub static LOOPS: Loops = Loops {
        name: "AVX-512 BF16",
        rounded: Rounded {
            terms: 2,
            left: pairs::left,
            right: pairs::right,
            tiles: tiles!([1 2 3 4 5 6 7 8 9 10 11 12]),
        },
        ..avx512::SET
    };
}

/// Those that this processor runs, the best first.
pub fn available() -> Vec<&'static Loops> {
    let all: &[(Level, &Loops)] = &[
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512Bf16, &avx512_bf16::LOOPS),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, &avx512::LOOPS),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, &avx2::LOOPS),
        (Level::Baseline, &plain::LOOPS),
    ];
    all.iter().filter(|(needed, _)| *needed <= level()).map(|(_, loops)| *loops).collect()
}

pub fn best() -> &'static Loops {
    static BEST: OnceLock<&'static Loops> = OnceLock::new();
    BEST.get_or_init(|| available()[0])
}
