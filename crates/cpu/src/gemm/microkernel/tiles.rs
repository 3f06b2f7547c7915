//! Tables of microkernels by tile size. A microkernel sums some terms of K in registers, then applies the epilogue or
//! keeps the sums for the next terms.

use super::prefetch::Prefetch;
use crate::gemm::arguments::TileProduct;

/// Sums some terms of K and applies the epilogue or keeps the sums; meanwhile it prefetches, or packs, the next data.
pub type Microkernel = unsafe fn(&TileProduct, &mut Prefetch);

/// The microkernels of one kind of product.
pub struct Tiles {
    /// By rows − 1, then by width: one vector, one masked vector, two vectors, two with a masked last one, and so on.
    variants: Vec<Microkernel>,
    vectors: usize,
    /// Row granularity: a tile takes as long as one with the next multiple of `step` rows. Packed A interleaves `step`
    /// rows.
    pub step: usize,
    lanes: usize,
    /// Elements of the sums that the largest tile keeps from block to block of K; 0 if none are kept.
    pub kept_sums: usize,
    /// Functions that a thread calls before its first tile and after its last.
    setup_and_teardown: Option<[unsafe fn(); 2]>,
}

/// Allows a thread to call microkernels while it exists.
pub struct ThreadSetup(Option<unsafe fn()>);

impl Drop for ThreadSetup {
    fn drop(&mut self) {
        if let Some(after) = self.0 {
            // SAFETY: `Tiles::set_up_thread` required the instructions.
            unsafe { after() };
        }
    }
}

impl Tiles {
    pub fn new<const VARIANTS: usize>(
        variants: &[[Microkernel; VARIANTS]],
        step: usize,
        lanes: usize,
        setup_and_teardown: Option<[unsafe fn(); 2]>,
    ) -> Tiles {
        Tiles {
            variants: variants.as_flattened().to_vec(),
            vectors: VARIANTS / 2,
            step,
            lanes,
            kept_sums: 0,
            setup_and_teardown,
        }
    }

    /// Microkernels whose sums are kept from block to block of K, `kept` elements of the largest tile.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn with_kept_sums(self, kept_sums: usize) -> Tiles {
        Tiles { kept_sums, ..self }
    }

    /// Prepares the current thread for these microkernels.
    ///
    /// # Safety
    /// The processor has the tiles' instructions.
    pub unsafe fn set_up_thread(&self) -> ThreadSetup {
        ThreadSetup(self.setup_and_teardown.map(|[before, after]| {
            // SAFETY: guaranteed by the caller.
            unsafe { before() };
            after
        }))
    }

    /// Rows of the largest tile.
    #[inline]
    pub fn rows(&self) -> usize {
        self.variants.len() / (2 * self.vectors)
    }

    /// Whether tiles have three vectors: see `table::make_wide_tiles`.
    #[inline]
    pub fn is_wide(&self) -> bool {
        self.vectors > 2
    }

    /// The panel width, in columns: the width of the widest tile.
    #[inline]
    pub fn panel(&self) -> usize {
        self.vectors * self.lanes
    }

    /// The microkernel for a tile's rows and width.
    #[inline]
    pub fn find(&self, &TileProduct { rows, width, .. }: &TileProduct) -> Microkernel {
        let variant = 2 * (width.div_ceil(self.lanes) - 1) + !width.is_multiple_of(self.lanes) as usize;
        self.variants[2 * self.vectors * (rows - 1) + variant]
    }
}

/// The microkernels by rows, for tiles of two or three vectors, up to the largest row count of any instruction set;
/// `$level` is passed on to the function that makes each.
macro_rules! variants {
    (2, $tile:ident $($level:tt)*) => {
        $crate::gemm::microkernel::tiles::variants!(@ [1 2] $tile [$($level)*] 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (3, $tile:ident $($level:tt)*) => {
        $crate::gemm::microkernel::tiles::variants!(@ [1 2 3] $tile [$($level)*] 1 2 3 4 5 6 7 8)
    };
    (@ $vectors:tt $tile:ident $level:tt $($rows:literal)*) => {
        [$($crate::gemm::microkernel::tiles::variants!(# $vectors $tile $level $rows)),*]
    };
    (# [$($vectors:literal)*] $tile:ident $level:tt $rows:literal) => {
        [$(
            $crate::gemm::microkernel::tiles::variants!(= $tile $level $rows $vectors false),
            $crate::gemm::microkernel::tiles::variants!(= $tile $level $rows $vectors true)
        ),*]
    };
    (= $tile:ident [$($level:tt)*] $rows:literal $vectors:literal $masked:literal) => {
        $tile::<$rows, $vectors, $masked> $($level)*
    };
}
pub(in crate::gemm) use variants;
