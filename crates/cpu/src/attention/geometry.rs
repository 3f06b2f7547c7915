//! Sizes, strides and positions of an attention, and which keys a query sees.

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
/// Factors are rounded to bf16 if the processor multiplies pairs of bf16 faster than f32: the caller then passes a level
/// with products of bf16.
pub const ROUNDED: u32 = 16;

/// Sizes, strides and positions; strides are in elements. Query rows are [B, T, H, D] or [B, H, T, D], by strides.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// The flags that apply: `CAUSAL`, `SEGMENTS`, `MASK`, `FIRST` and `ROUNDED`.
    pub flags: u32,
    pub batch: usize,
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    /// Query heads per key/value head.
    pub group: usize,
    pub dim: usize,
    pub q_batch: usize,
    pub q_row: usize,
    pub q_head: usize,
    pub kv_batch: usize,
    pub kv_row: usize,
    pub kv_head: usize,
    pub segment_batch: usize,
    pub mask_batch: usize,
    /// Positions of the first query and of the first key of this window.
    pub query_at: usize,
    pub key_at: usize,
    /// The most keys that a query sees, including its own.
    pub window: usize,
    pub scale: f32,
}

impl Geometry {
    pub fn is_first(&self) -> bool {
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
    pub fn split_blocks(&self) -> Vec<[usize; 2]> {
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
    pub fn find_run_span(&self, [first, end]: [usize; 2]) -> [usize; 2] {
        let [from, to] = self.span(first);
        [from, to.max(self.span(end - 1)[1])]
    }

    /// The number of elements in the native backward's parts of the key gradients.
    pub fn count_partials(&self) -> usize {
        let width = self.dim.next_multiple_of(16);
        self.batch * self.kv_heads * self.split_blocks().len() * 2 * self.keys * width
    }
}
