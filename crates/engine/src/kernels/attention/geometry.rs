//! The scalars of attention's launches, and the sizes of its operands.

use lowrank_cpu::attention::Geometry;

use crate::scalars;

scalars! {
    for Geometry {
        flags: u32,
        batch: usize,
        kv_heads: usize,
        queries: usize,
        keys: usize,
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
        query_at: usize,
        key_at: usize,
        window: usize,
        scale: f32,
    }
}

scalars! {
    /// The scalars of a launch with dropout; `DropoutMask` describes them.
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
    pub fn new(q: &[usize], k: &[usize], heads_first: bool) -> Sizes {
        let [row, head] = if heads_first { [2, 1] } else { [1, 2] };
        Sizes { batch: q[0], queries: q[row], heads: q[head], capacity: k[row], kv_heads: k[head], dim: q[3] }
    }
}
