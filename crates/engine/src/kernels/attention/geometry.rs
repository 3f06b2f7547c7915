//! Sizes, strides and positions of one launch: what its scalars say, and who sees whom.

use crate::kernel::native::NativeLaunch;
use crate::scalars;

/// Query rows of a block of the native kernels.
pub const LANES: usize = 64;
/// Largest head size.
pub const DIM: usize = 256;
/// Tasks that the native backward is cut into at least, where there are as many blocks.
const TASKS: usize = 16;

pub const CAUSAL: u32 = 1;
pub const SEGMENTS: u32 = 2;
pub const MASK: u32 = 4;
/// The outputs hold nothing yet.
pub const FIRST: u32 = 8;
/// A processor that multiplies pairs of bf16 faster than f32 rounds the products' factors to them.
pub const ROUNDED: u32 = 16;

scalars! {
    /// The scalars of a launch; strides are in elements.
    pub struct Geometry {
        /// `CAUSAL`, `SEGMENTS`, `MASK`, `FIRST` and `ROUNDED`, where they hold.
        flags: u32,
        batch: usize,
        kv_heads: usize,
        queries: usize,
        keys: usize,
        /// Query heads of a key/value head.
        group: usize,
        dim: usize,
        q_batch: usize,
        q_row: usize,
        q_head: usize,
        kv_batch: usize,
        kv_row: usize,
        kv_head: usize,
        segment_batch: usize,
        mask_batch: usize,
        /// Positions of the first query and of the first key of this window.
        query_at: usize,
        key_at: usize,
        /// Keys that a query sees at most, its own included.
        window: usize,
        scale: f32,
    }
}

scalars! {
    /// The scalars of a launch that drops weights; `Mask` has what they mean.
    pub struct Dropped {
        geometry: Geometry,
        key: [u32; 2],
        threshold: u32,
        /// Where the log-sum-exp of the window's first row stands in all of it.
        row_base: u32,
    }
}

/// The sizes of q [B, T, H, D] and k [B, S, Hkv, D], or of [B, H, T, D] and [B, Hkv, S, D].
pub struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub heads: usize,
    /// S
    pub capacity: usize,
    pub kv_heads: usize,
    pub dim: usize,
}

impl Sizes {
    pub fn of(q: &[usize], k: &[usize], heads_first: bool) -> Sizes {
        let [row, head] = if heads_first { [2, 1] } else { [1, 2] };
        Sizes { batch: q[0], queries: q[row], heads: q[head], capacity: k[row], kv_heads: k[head], dim: q[3] }
    }
}

impl Geometry {
    pub fn of(l: &NativeLaunch) -> Geometry {
        l.scalars()
    }

    pub fn first(&self) -> bool {
        self.flags & FIRST != 0
    }

    /// Query rows (t, g) of one key/value head, and their blocks.
    pub fn rows(&self) -> usize {
        self.queries * self.group
    }

    pub fn blocks(&self) -> usize {
        self.rows().div_ceil(LANES)
    }

    /// Keys of this window that row t of it sees by position.
    pub fn visible(&self, t: usize) -> [usize; 2] {
        if self.flags & CAUSAL == 0 {
            return [0, self.keys];
        }
        let end = self.query_at + t + 1;
        let from = end.saturating_sub(self.window);
        let here = |p: usize| p.saturating_sub(self.key_at).min(self.keys);
        [here(from), here(end)]
    }

    /// Keys that any row of a block sees by position.
    pub fn span(&self, block: usize) -> [usize; 2] {
        let last = ((block + 1) * LANES).min(self.rows()) - 1;
        [self.visible(block * LANES / self.group)[0], self.visible(last / self.group)[1]]
    }

    /// Runs of blocks of about equal work: each sums key gradients of its own, so that their order
    /// depends on the shapes alone.
    pub fn chunks(&self) -> Vec<[usize; 2]> {
        let blocks = self.blocks();
        let wanted = TASKS.div_ceil(self.batch * self.kv_heads).min(blocks);
        let work = |b: usize| {
            let [from, to] = self.span(b);
            // A block costs something even where it sees little.
            to.saturating_sub(from) + LANES / 2
        };
        let total: usize = (0..blocks).map(work).sum();
        let mut chunks: Vec<[usize; 2]> = Vec::with_capacity(wanted);
        let (mut done, mut start) = (0, 0);
        for b in 0..blocks {
            done += work(b);
            if done * wanted >= total * (chunks.len() + 1) {
                chunks.push([start, b + 1]);
                start = b + 1;
            }
        }
        chunks
    }

    /// Keys that a run of blocks sees by position.
    pub fn reach(&self, [first, end]: [usize; 2]) -> [usize; 2] {
        let [from, to] = self.span(first);
        [from, to.max(self.span(end - 1)[1])]
    }

    /// Elements of the parts that the native backward sums key gradients in.
    pub fn parts(&self) -> usize {
        let width = self.dim.next_multiple_of(16);
        self.batch * self.kv_heads * self.chunks().len() * 2 * self.keys * width
    }
}
