//! Attention: softmax(scale · Q Kᵀ) V and its gradients, tile by tile, without storing the scores.
//!
//! Query rows are in the lanes: a block has 64 rows (t, g) of one key/value head, with position t and head g of its
//! group, so grouped heads share every loaded key. Scores are stored as Sᵀ [keys, lanes], so that the softmax runs down
//! columns and needs no sum across lanes. Scratch memory in addition to the pool's is one block per thread, about
//! 0.5 MiB.
//!
//! With bf16 products, on a processor that was measured to multiply pairs of bf16 faster than f32
//! (`gemm::measure`), packed rows are converted to pairs in place, along the side that a product sums over; K and
//! dS in backward along both. A query is rounded identically in both passes, so that P is bit-identical. With tiles
//! (AMX) rows of f32 become pairs while they are packed (pairs.rs), and products use whole registers of them
//! (tiles.rs). An A that is otherwise read by columns is packed transposed, and both factors are padded with zeros to a
//! multiple of 32 along k. Two cores of a Zen 4 EPYC, SmolLM2's heads, causal, in ms (`cargo bench --bench attention`):
//!
//! | tokens | forward f32 | pairs | backward f32 | pairs |
//! |--------|-------------|-------|--------------|-------|
//! | 512    | 2.44        | 1.65  | 5.37         | 3.45  |
//!
//! Two cores of an Intel Xeon with AMX (Granite Rapids), where pairs are slower than f32:
//!
//! | tokens | forward f32 | pairs | tiles | backward f32 | pairs | tiles |
//! |--------|-------------|-------|-------|--------------|-------|-------|
//! | 512    | 1.35        | 1.99  | 0.66  | 2.82         | 4.45  | 1.29  |
//! | 2048   | 19.5        | 28.1  | 8.8   | 42.8         | 65.9  | 18.2  |
//!
//! A step of SmolLM2's shape in bf16 on a Xeon in a virtual machine without AMX (Emerald Rapids, two cores, ms of
//! attention): forward 104 with pairs and 70 in f32, backward 255 and 146.
//!
//! With tiles a third of the time is packing, a quarter products and a fifth exp.
//!
//! A step of 4 × 512 tokens in bf16: 4640 ms with attention in f32, 4290 with pairs. Transposing rows into lanes in
//! registers, one square at a time, saves 5% of forward and 3% of backward compared with single elements, in both
//! precisions. Transposing back the same way and keeping running maxima in registers saves another 10% of forward (15%
//! with pairs) and 2% of backward. Processing a partially visible tile in groups of 32, and summing key gradients in
//! the output if there is only one run: for 16 texts of 64 tokens and 4 heads of 32, forward from 318 to 302 µs,
//! backward from 780 to 685 µs.

mod backward;
mod decode;
mod dropped;
mod forward;
mod geometry;
mod pairs;
mod product;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use backward::{Inputs, backward, compute_delta};
pub use dropped::DropoutMask;
pub use forward::forward;
pub use geometry::{CAUSAL, DIM, FIRST, Geometry, MASK, ROUNDED, SEGMENTS};

use std::cell::RefCell;

use crate::simd::{Isa, Lanes};
use geometry::LANES;

/// Keys per tile.
const KEYS: usize = 64;
/// The group size, in lanes or keys, for a tile that is only partially visible: each group is multiplied only by its
/// visible part of the other side, which is three quarters of a tile on the diagonal. The skipped products are zeros,
/// so no bit of the result changes.
const GROUP: usize = 32;
/// The stride of packed rows, in elements: an odd number of cache lines, so that the rows of a tile do not alias in the
/// cache.
const ROW: usize = DIM + 16;

/// The stride, in elements, of transposed factors for tiles: pairs of keys.
const TRANSPOSED_ROW: usize = KEYS / 2;

/// The score of a key that a query does not see.
pub const HIDDEN: f32 = -3.4e38;
/// The initial value of maxima: so far above `HIDDEN` that exp of the difference is 0.
pub const FLOOR: f32 = -1.0e38;

/// The segments of queries and of keys, and the mask of keys (0 hides a key), by batch row. Each is read if the
/// geometry's flags say so.
#[derive(Clone, Copy)]
pub struct Labels<'a> {
    pub query_segment: &'a [i32],
    pub key_segment: &'a [i32],
    pub mask: &'a [i32],
}

/// One block of query rows of a batch row and key/value head.
pub struct Block<'a> {
    pub g: &'a Geometry,
    pub labels: Labels<'a>,
    pub b: usize,
    pub head: usize,
    pub rows: usize,
    /// The number of computed lanes: rows rounded up to 16.
    pub lanes: usize,
    ranges: [[usize; 2]; LANES],
    /// For each lane its position, its row's offset in q, and the index of its log-sum-exp. Stored, since each is used
    /// several times, and a division by the group's heads takes as long as a vector of products.
    lane_offsets: [[usize; 3]; LANES],
}

impl<'a> Block<'a> {
    pub fn new(g: &'a Geometry, labels: Labels<'a>, b: usize, head: usize, block: usize) -> Self {
        let first_row = block * LANES;
        let rows = LANES.min(g.rows() - first_row);
        let mut ranges = [[0; 2]; LANES];
        let mut lane_offsets = [[0; 3]; LANES];
        let (mut t, mut j) = (first_row / g.group, first_row % g.group);
        // Values with one number per row have q's layout without D.
        let [lse_batch, lse_row, lse_head] = [g.q_batch, g.q_row, g.q_head].map(|stride| stride / g.dim);
        for (range, place) in ranges.iter_mut().zip(&mut lane_offsets).take(rows) {
            let query = head * g.group + j;
            *range = g.visible(t);
            *place = [
                t,
                b * g.q_batch + t * g.q_row + query * g.q_head,
                b * lse_batch + t * lse_row + query * lse_head,
            ];
            j += 1;
            if j == g.group {
                (t, j) = (t + 1, 0);
            }
        }
        Block { g, labels, b, head, rows, lanes: rows.next_multiple_of(16), ranges, lane_offsets }
    }

    /// A lane's offset in q and in values with q's layout.
    pub fn q_offset(&self, lane: usize) -> usize {
        self.lane_offsets[lane][1]
    }

    /// The index of a lane's log-sum-exp.
    pub fn lse_index(&self, lane: usize) -> usize {
        self.lane_offsets[lane][2]
    }

    /// Whether a lane sees a key of this window.
    pub fn sees(&self, lane: usize, key: usize) -> bool {
        let (t, batch) = (self.lane_offsets[lane][0], self.b * self.g.segment_batch);
        let [from, to] = self.ranges[lane];
        let hidden = self.g.flags & MASK != 0 && self.labels.mask[self.b * self.g.mask_batch + key] == 0;
        let other_segment = self.g.flags & SEGMENTS != 0
            && self.labels.query_segment[batch + t] != self.labels.key_segment[batch + key];
        (from..to).contains(&key) && !hidden && !other_segment
    }

    /// The number of keys from `start` on, before `end`, that the mask hides without a gap.
    pub fn count_hidden(&self, start: usize, end: usize) -> usize {
        if self.g.flags & MASK == 0 || start >= end {
            return 0;
        }
        let mask = &self.labels.mask[self.b * self.g.mask_batch..][start..end];
        // In chunks of sixteen, so that vectors skip most of a long padding.
        let whole =
            mask.chunks_exact(16).take_while(|part| part.iter().fold(0, |any, m| any | *m) == 0).count() * 16;
        whole + mask[whole..].iter().take_while(|m| **m == 0).count()
    }

    pub fn kv_offset(&self, key: usize) -> usize {
        self.b * self.g.kv_batch + key * self.g.kv_row + self.head * self.g.kv_head
    }

    /// Whether every lane sees all keys `from..from + count` by position.
    fn sees_all(&self, from: usize, count: usize) -> bool {
        self.ranges[..self.rows].iter().all(|r| r[0] <= from && r[1] >= from + count)
    }

    /// Groups of lanes, each with the range of keys of the tile `from..from + count` that any lane of the group sees by
    /// position. Key indices are relative to the tile and start at an even one, since keys may be in pairs.
    fn group_lanes(&self, from: usize, count: usize) -> impl Iterator<Item = ([usize; 2], [usize; 2])> {
        let size = if self.sees_all(from, count) { LANES } else { GROUP };
        (0..self.lanes).step_by(size).map(move |lane| {
            let lanes = [lane, (lane + size).min(self.lanes)];
            let seen = self.ranges[lane..lanes[1].min(self.rows).max(lane)].iter();
            let within = |key: usize| key.clamp(from, from + count) - from;
            let bounds = seen.map(|r| r.map(within)).filter(|r| r[0] < r[1]);
            let [first, end] = bounds.reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]).unwrap_or([0, 0]);
            (lanes, [first & !1, end.next_multiple_of(2).min(count)])
        })
    }

    /// Groups of the tile's keys, as indices in the tile, each with the range of lanes that see any of them by
    /// position. Lanes start at an even one.
    fn group_keys(&self, from: usize, count: usize) -> impl Iterator<Item = ([usize; 2], [usize; 2])> {
        let size = if self.sees_all(from, count) { KEYS } else { GROUP };
        (0..count).step_by(size).map(move |key| {
            let keys = [key, (key + size).min(count)];
            let sees = |r: &[usize; 2]| r[0] < from + keys[1] && r[1] > from + keys[0];
            let first = self.ranges[..self.rows].iter().position(sees).unwrap_or(self.rows);
            let end = self.ranges[..self.rows].iter().rposition(sees).map_or(first, |last| last + 1);
            (keys, [first & !1, end.next_multiple_of(2).min(self.rows)])
        })
    }

    /// Sets the hidden scores of keys `from..from + count` in S [count, LANES], and counts the keys that each lane
    /// sees.
    #[inline(always)]
    pub fn hide(&self, from: usize, count: usize, s: &mut [f32], seen: &mut [f32; LANES]) {
        let whole = self.sees_all(from, count);
        let flags = self.g.flags & (SEGMENTS | MASK);
        if whole && flags == 0 {
            seen.iter_mut().for_each(|s| *s += count as f32);
            return;
        }
        let mut low = [0f32; LANES];
        let mut high = [0f32; LANES];
        let mut segment = [0i32; LANES];
        for lane in 0..self.rows {
            let [start, end] = self.ranges[lane];
            low[lane] = start.clamp(from, from + count) as f32 - from as f32;
            high[lane] = end.clamp(from, from + count) as f32 - from as f32;
            if flags & SEGMENTS != 0 {
                let t = self.lane_offsets[lane][0];
                segment[lane] = self.labels.query_segment[self.b * self.g.segment_batch + t];
            }
        }
        for (k, row) in s.chunks_exact_mut(LANES).take(count).enumerate() {
            let key = from + k;
            if flags & MASK != 0 && self.labels.mask[self.b * self.g.mask_batch + key] == 0 {
                row.fill(HIDDEN);
                continue;
            }
            let own = match flags & SEGMENTS {
                0 => 0,
                _ => self.labels.key_segment[self.b * self.g.segment_batch + key],
            };
            let at = k as f32;
            for lane in 0..LANES {
                let sees = (low[lane] <= at) & (at < high[lane]) & (segment[lane] == own);
                row[lane] = if sees { row[lane] } else { HIDDEN };
                seen[lane] += if sees { 1.0 } else { 0.0 };
            }
        }
    }
}

/// The range of keys or lanes over which products of S sum: tiles use whole registers, padded with zeros.
fn align_to_tiles<S: Isa>([first, end]: [usize; 2]) -> [usize; 2] {
    if S::TILED {
        [first / pairs::TERMS * pairs::TERMS, end.next_multiple_of(pairs::TERMS)]
    } else {
        [first, end]
    }
}

/// Transposes rows of [·, d] into lanes: to[d][lane] = from[row(lane)][d] · scale, 0 past `rows`.
#[inline(always)]
pub fn transpose_rows<S: Isa>(
    from: &[f32],
    at: impl Fn(usize) -> usize,
    rows: usize,
    dim: usize,
    scale: f32,
    to: &mut [f32],
) {
    let to = &mut to[..dim * LANES];
    for first in (0..rows.next_multiple_of(16)).step_by(S::WIDTH) {
        // Whole squares are transposed in registers.
        let squares = if first + S::WIDTH <= rows { dim / S::WIDTH * S::WIDTH } else { 0 };
        for d in (0..squares).step_by(S::WIDTH) {
            // SAFETY: the processor has S's instructions; each slice has a vector's length.
            unsafe {
                let scale = S::V::splat(scale);
                let mut square = [scale; 16];
                for (i, v) in square.iter_mut().enumerate().take(S::WIDTH) {
                    *v = S::V::load(from[at(first + i) + d..][..S::WIDTH].as_ptr()).mul(scale);
                }
                S::V::transpose(&mut square);
                for (i, v) in square.iter().enumerate().take(S::WIDTH) {
                    v.store(to[(d + i) * LANES + first..][..S::WIDTH].as_mut_ptr());
                }
            }
        }
        for lane in first..first + S::WIDTH {
            if lane < rows {
                let row = &from[at(lane)..at(lane) + dim];
                for (d, v) in row.iter().enumerate().skip(squares) {
                    to[d * LANES + lane] = v * scale;
                }
            } else {
                (0..dim).for_each(|d| to[d * LANES + lane] = 0.0);
            }
        }
    }
}

/// The inverse of `transpose_rows`: to[lane][d] = from[d][lane], at the tile's stride.
#[inline(always)]
pub fn transpose_back<S: Isa>(from: &[f32], rows: usize, dim: usize, to: &mut [f32]) {
    let to = &mut to[..LANES * ROW];
    let squares = dim / S::WIDTH * S::WIDTH;
    for first in (0..rows).step_by(S::WIDTH) {
        for d in (0..squares).step_by(S::WIDTH) {
            // SAFETY: the processor has S's instructions; each slice has a vector's length.
            unsafe {
                let mut square = [S::V::splat(0.0); 16];
                for (i, v) in square.iter_mut().enumerate().take(S::WIDTH) {
                    *v = S::V::load(from[(d + i) * LANES + first..][..S::WIDTH].as_ptr());
                }
                S::V::transpose(&mut square);
                for (i, v) in square.iter().enumerate().take(S::WIDTH) {
                    v.store(to[(first + i) * ROW + d..][..S::WIDTH].as_mut_ptr());
                }
            }
        }
    }
    for lane in 0..rows {
        for d in squares..dim {
            to[lane * ROW + d] = from[d * LANES + lane];
        }
    }
}

/// Copies rows to the tile's stride, with zeros from `dim` to a multiple of 16.
#[inline(always)]
pub fn pack(from: &[f32], at: impl Fn(usize) -> usize, rows: usize, dim: usize, scale: f32, to: &mut [f32]) {
    for r in 0..rows {
        let row = &from[at(r)..at(r) + dim];
        let to = &mut to[r * ROW..r * ROW + dim.next_multiple_of(16)];
        for (t, v) in to.iter_mut().zip(row) {
            *t = v * scale;
        }
        to[dim..].fill(0.0);
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct CacheLine([f32; 16]);

thread_local!(static SCRATCH: RefCell<Vec<CacheLine>> = const { RefCell::new(Vec::new()) });

/// This thread's scratch memory for a block. It is not passed to a closure, since a closure would be compiled without
/// the instruction set of the surrounding function.
pub struct Scratch(Vec<CacheLine>);

impl Scratch {
    pub fn acquire() -> Scratch {
        Scratch(SCRATCH.take())
    }

    /// Returns aligned parts of these lengths (multiples of 16). Their content is left over from the last use.
    pub fn split<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        let total: usize = lengths.iter().sum();
        if self.0.len() * 16 < total {
            self.0.resize(total.div_ceil(16), CacheLine([0.0; 16]));
        }
        let pointer = self.0.as_mut_ptr().cast::<f32>();
        let mut at = 0;
        lengths.map(|n| {
            debug_assert_eq!(n % 16, 0);
            at += n;
            // SAFETY: the sum of the lengths is at most the allocation, and no two parts overlap.
            unsafe { std::slice::from_raw_parts_mut(pointer.add(at - n), n) }
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}
