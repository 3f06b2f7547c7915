//! The sizes, strides and positions in a launch's scalars, and which keys a query sees.

use crate::kernel::native::NativeLaunch;
use crate::scalars;

/// Query rows in a block of the native kernels.
pub const LANES: usize = 64;
/// The largest head size.
pub const DIM: usize = 256;
/// The fewest tasks of the native backward, if there are as many blocks.
const TASKS: usize = 16;

pub const CAUSAL: u32 = 1;
pub const SEGMENTS: u32 = 2;
pub const MASK: u32 = 4;
/// This is the first window of keys: the outputs have no values yet.
pub const FIRST: u32 = 8;
/// Factors are rounded to bf16 if the processor multiplies pairs of bf16 faster than f32.
pub const ROUNDED: u32 = 16;

scalars! {
    /// The scalars of a launch; strides are in elements.
    pub struct Geometry {
        /// The flags that apply: `CAUSAL`, `SEGMENTS`, `MASK`, `FIRST` and `ROUNDED`.
        flags: u32,
        batch: usize,
        kv_heads: usize,
        queries: usize,
        keys: usize,
        /// Query heads per key/value head.
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
        /// The most keys that a query sees, including its own.
        window: usize,
        scale: f32,
    }
}

scalars! {
    /// The scalars of a launch with dropout; `Mask` describes them.
    pub struct Dropped {
        geometry: Geometry,
        key: [u32; 2],
        threshold: u32,
        /// The index of the window's first row in the whole log-sum-exp.
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

    /// The number of query rows (t, g) of one key/value head.
    pub fn rows(&self) -> usize {
        self.queries * self.group
    }

    pub fn blocks(&self) -> usize {
        self.rows().div_ceil(LANES)
    }

    /// The range of this window's keys that row t sees by position.
    pub fn visible(&self, t: usize) -> [usize; 2] {
        if self.flags & CAUSAL == 0 {
            return [0, self.keys];
        }
        let end = self.query_at + t + 1;
        let from = end.saturating_sub(self.window);
        let here = |p: usize| p.saturating_sub(self.key_at).min(self.keys);
        [here(from), here(end)]
    }

    /// The range of keys that any row of a block sees by position.
    pub fn span(&self, block: usize) -> [usize; 2] {
        let last = ((block + 1) * LANES).min(self.rows()) - 1;
        [self.visible(block * LANES / self.group)[0], self.visible(last / self.group)[1]]
    }

    /// Splits the blocks into runs of about equal work. Each run sums its own part of the key gradients, so that the
    /// order of the sum depends only on the shapes.
    pub fn chunks(&self) -> Vec<[usize; 2]> {
        let blocks = self.blocks();
        let wanted = TASKS.div_ceil(self.batch * self.kv_heads).min(blocks);
        let work = |b: usize| {
            let [from, to] = self.span(b);
            // A block has a fixed cost even if it sees few keys.
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

    /// The range of keys that a run of blocks sees by position.
    pub fn reach(&self, [first, end]: [usize; 2]) -> [usize; 2] {
        let [from, to] = self.span(first);
        [from, to.max(self.span(end - 1)[1])]
    }

    /// The number of elements in the native backward's parts of the key gradients.
    pub fn parts(&self) -> usize {
        let width = self.dim.next_multiple_of(16);
        self.batch * self.kv_heads * self.chunks().len() * 2 * self.keys * width
    }
}
