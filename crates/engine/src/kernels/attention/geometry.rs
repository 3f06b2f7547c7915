//! Sizes, strides and positions of one launch: what its scalars say, and who sees whom.

use smallvec::SmallVec;

use crate::kernel::Scalar;
use crate::kernel::native::NativeLaunch;

/// Query rows of a block of the native kernels.
pub const LANES: usize = 64;
/// Largest head size.
pub const DIM: usize = 256;
/// Tasks that the native backward is cut into at least, where there are as many blocks.
const TASKS: usize = 16;

pub const CAUSAL: u32 = 1;
pub const SEGMENTS: u32 = 2;
pub const MASK: u32 = 4;

/// The scalars of a launch; strides are in elements.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub flags: u32,
    pub batch: usize,
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub group: usize,
    pub dim: usize,
    pub q_batch: usize,
    pub q_row: usize,
    pub kv_batch: usize,
    pub kv_row: usize,
    pub lse_batch: usize,
    pub lse_row: usize,
    pub segment_batch: usize,
    pub mask_batch: usize,
    /// Positions of the first query and of the first key of this window.
    pub query_at: usize,
    pub key_at: usize,
    /// Keys that a query sees at most, its own included.
    pub window: usize,
    pub scale: f32,
    /// Whether the outputs hold nothing yet.
    pub first: bool,
    /// Whether a processor that multiplies pairs of bf16 rounds the products' factors to them.
    pub rounded: bool,
}

pub const SCALARS: [Scalar; 20] = {
    use Scalar::{F32, U32};
    [
        U32("batch"),
        U32("kv_heads"),
        U32("queries"),
        U32("keys"),
        U32("group_heads"),
        U32("dim"),
        U32("q_batch"),
        U32("q_row"),
        U32("kv_batch"),
        U32("kv_row"),
        U32("lse_batch"),
        U32("lse_row"),
        U32("segment_batch"),
        U32("mask_batch"),
        U32("query_at"),
        U32("key_at"),
        U32("window"),
        F32("scale"),
        U32("first"),
        // For the native twins alone.
        U32("rounded"),
    ]
};

impl Geometry {
    pub fn scalars(&self) -> SmallVec<[u32; 24]> {
        let sizes = [
            self.batch,
            self.kv_heads,
            self.queries,
            self.keys,
            self.group,
            self.dim,
            self.q_batch,
            self.q_row,
            self.kv_batch,
            self.kv_row,
            self.lse_batch,
            self.lse_row,
            self.segment_batch,
            self.mask_batch,
            self.query_at,
            self.key_at,
            self.window,
        ];
        let mut scalars: SmallVec<[u32; 24]> = sizes.iter().map(|n| *n as u32).collect();
        scalars.extend([self.scale.to_bits(), self.first as u32, self.rounded as u32]);
        scalars
    }

    pub fn of(l: &NativeLaunch) -> Geometry {
        let u = |i| l.u32(i);
        Geometry {
            flags: l.params[0],
            batch: u(0),
            kv_heads: u(1),
            queries: u(2),
            keys: u(3),
            group: u(4),
            dim: u(5),
            q_batch: u(6),
            q_row: u(7),
            kv_batch: u(8),
            kv_row: u(9),
            lse_batch: u(10),
            lse_row: u(11),
            segment_batch: u(12),
            mask_batch: u(13),
            query_at: u(14),
            key_at: u(15),
            window: u(16),
            scale: l.f32(17),
            first: u(18) == 1,
            rounded: u(19) == 1,
        }
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
