//! The tiles of products: functions by rows and width, which sum some terms of K in registers, and store
//! what the epilogue makes of the sums, or keep them for the next terms.

use super::microkernel::TileProduct;
use super::prefetch::Prefetch;

/// Sums some terms of K, stores what the epilogue makes of the sums or keeps them, and asks for what comes next meanwhile,
/// or packs of it.
pub type Microkernel = unsafe fn(&TileProduct, &mut Prefetch);

/// The tiles of a kind of products.
pub struct Tiles {
    /// By rows − 1, as many for each: one vector, one masked, two vectors, two of which the second is masked, and so on.
    forms: Vec<Microkernel>,
    vectors: usize,
    /// Rows that tiles come in, and that lie together where A is packed for them: one of fewer takes as long as one of the
    /// next multiple.
    pub step: usize,
    lanes: usize,
    /// Elements of the sums that go on from part to part of a largest tile; none are kept where that is 0.
    pub kept: usize,
    /// What a thread does before its first tile, and after its last.
    around: Option<[unsafe fn(); 2]>,
}

/// A thread that may call tiles, as long as this is kept.
pub struct Ready(Option<unsafe fn()>);

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(after) = self.0 {
            // SAFETY: who made it had the instructions.
            unsafe { after() };
        }
    }
}

impl Tiles {
    pub fn new<const FORMS: usize>(
        forms: &[[Microkernel; FORMS]],
        step: usize,
        lanes: usize,
        around: Option<[unsafe fn(); 2]>,
    ) -> Tiles {
        Tiles { forms: forms.as_flattened().to_vec(), vectors: FORMS / 2, step, lanes, kept: 0, around }
    }

    /// Tiles whose sums go on from part to part.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub fn keeping(self, kept: usize) -> Tiles {
        Tiles { kept, ..self }
    }

    /// # Safety
    /// The processor has the tiles' instructions.
    pub unsafe fn ready(&self) -> Ready {
        Ready(self.around.map(|[before, after]| {
            // SAFETY: the caller's.
            unsafe { before() };
            after
        }))
    }

    /// Rows of the largest.
    pub fn rows(&self) -> usize {
        self.forms.len() / (2 * self.vectors)
    }

    /// Of three vectors: see `loops::wide`.
    pub fn wide(&self) -> bool {
        self.vectors > 2
    }

    /// Columns of a panel of B, and of the widest.
    pub fn panel(&self) -> usize {
        self.vectors * self.lanes
    }

    /// That of the product's rows and columns.
    pub fn of(&self, &TileProduct { rows, width, .. }: &TileProduct) -> Microkernel {
        let form = 2 * (width.div_ceil(self.lanes) - 1) + !width.is_multiple_of(self.lanes) as usize;
        self.forms[2 * self.vectors * (rows - 1) + form]
    }
}

/// Forms of tiles by rows, up to those of the set that has most, of two vectors or of three; `$level` is what the forms
/// are asked for.
macro_rules! forms {
    (2, $tile:ident $($level:tt)*) => {
        $crate::kernels::gemm::native::tiles::forms!(@ [1 2] $tile [$($level)*] 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (3, $tile:ident $($level:tt)*) => {
        $crate::kernels::gemm::native::tiles::forms!(@ [1 2 3] $tile [$($level)*] 1 2 3 4 5 6 7 8)
    };
    (@ $vectors:tt $tile:ident $level:tt $($rows:literal)*) => {
        [$($crate::kernels::gemm::native::tiles::forms!(# $vectors $tile $level $rows)),*]
    };
    (# [$($vectors:literal)*] $tile:ident $level:tt $rows:literal) => {
        [$(
            $crate::kernels::gemm::native::tiles::forms!(= $tile $level $rows $vectors false),
            $crate::kernels::gemm::native::tiles::forms!(= $tile $level $rows $vectors true)
        ),*]
    };
    (= $tile:ident [$($level:tt)*] $rows:literal $vectors:literal $masked:literal) => {
        $tile::<$rows, $vectors, $masked> $($level)*
    };
}
pub(super) use forms;
