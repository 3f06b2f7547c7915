//! Dropout of weights. Backward computes the mask again.
//!
//! Row r of the log-sum-exp keeps its weight of key s if word s mod 4 of Philox 4x32-10 at counter (s / 4, r, 0, 0) is
//! at least p · 2³². So the mask depends only on the position, not on the tile, the thread or the device. Backward:
//! with M = mask / (1 − p), dV = (P ∘ M)ᵀ dO and dS = P ∘ (M ∘ dO Vᵀ − δ); δ = Σ dO ∘ O is unchanged, since O contains
//! M. Source: Dao et al., FlashAttention, arXiv 2205.14135, algorithm 4.

use crate::random::philox_lanes;
use crate::simd::{Isa, exp_or_zero};

use super::Block;
use super::geometry::{Geometry, LANES};

/// Lanes of one random draw.
const WIDE: usize = 16;

/// The mask of a launch.
#[derive(Clone, Copy)]
pub struct DropoutMask {
    key: [u32; 2],
    threshold: u32,
    row_base: u32,
    /// 1 / (1 − p)
    scale: f32,
    /// Position of the window's first key.
    key_at: usize,
}

impl DropoutMask {
    /// The mask of a launch over `geometry`. `key` is the generator's, `threshold` the probability of dropping a weight
    /// in units of 2⁻³², and `row_base` the index of the launch's first row in the whole log-sum-exp.
    pub fn new(geometry: &Geometry, key: [u32; 2], threshold: u32, row_base: u32) -> DropoutMask {
        let kept = ((1u64 << 32) - threshold as u64) as f64 / (1u64 << 32) as f64;
        DropoutMask { key, threshold, row_base, scale: (1.0 / kept) as f32, key_at: geometry.key_at }
    }

    /// The row numbers of `WIDE` lanes.
    #[inline(always)]
    fn number_rows(&self, block: &Block, lane: usize) -> [u32; WIDE] {
        let mut rows = [0; WIDE];
        for (i, row) in rows.iter_mut().enumerate().take(block.rows.saturating_sub(lane)) {
            *row = self.row_base + block.lse_index(lane + i) as u32;
        }
        rows
    }

    /// The factors of the weights of four keys, from position 4 · group.
    #[inline(always)]
    fn draw_factors(&self, group: usize, rows: [u32; WIDE]) -> [[f32; WIDE]; 4] {
        let random = philox_lanes::<WIDE>([[group as u32; WIDE], rows, [0; WIDE], [0; WIDE]], self.key);
        let mut factors = [[0.0; WIDE]; 4];
        for (factors, random) in factors.iter_mut().zip(&random) {
            for (factor, word) in factors.iter_mut().zip(random) {
                *factor = if *word >= self.threshold { self.scale } else { 0.0 };
            }
        }
        factors
    }

    /// The groups of four keys that contain keys `from..from + count` of the window.
    fn find_groups(&self, from: usize, count: usize) -> std::ops::Range<usize> {
        let first = self.key_at + from;
        first / 4..(first + count).div_ceil(4)
    }

    /// The keys of a group that are in the tile, as indices in the group and as rows of the tile.
    #[inline(always)]
    fn find_keys(&self, group: usize, from: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
        let first = self.key_at + from;
        (0..4).filter_map(move |w| {
            let row = (4 * group + w).checked_sub(first)?;
            (row < count).then_some((w, row))
        })
    }

    /// Drops weights s [count, LANES] of keys `from..`.
    #[inline(always)]
    pub fn drop_weights(&self, block: &Block, from: usize, count: usize, s: &mut [f32]) {
        for lane in (0..block.lanes).step_by(WIDE) {
            let rows = self.number_rows(block, lane);
            for group in self.find_groups(from, count) {
                let factors = self.draw_factors(group, rows);
                for (w, row) in self.find_keys(group, from, count) {
                    let s = &mut s[row * LANES + lane..][..WIDE];
                    for (s, factor) in s.iter_mut().zip(&factors[w]) {
                        *s *= factor;
                    }
                }
            }
        }
    }

    /// Converts scores to P ∘ M, and dO Vᵀ to dS.
    #[inline(always)]
    pub fn apply_to_gradients<S: Isa>(
        &self,
        block: &Block,
        from: usize,
        [p, ds]: [&mut [f32]; 2],
        lse: &[f32; LANES],
        delta: &[f32; LANES],
    ) {
        let count = p.len() / LANES;
        for lane in (0..block.lanes).step_by(WIDE) {
            let rows = self.number_rows(block, lane);
            let (lse, delta) = (&lse[lane..][..WIDE], &delta[lane..][..WIDE]);
            for group in self.find_groups(from, count) {
                let factors = self.draw_factors(group, rows);
                for (w, row) in self.find_keys(group, from, count) {
                    let at = row * LANES + lane;
                    let (p, ds) = (&mut p[at..][..WIDE], &mut ds[at..][..WIDE]);
                    for i in 0..WIDE {
                        let weight = exp_or_zero::<S>(p[i] - lse[i]);
                        ds[i] = weight * (ds[i] * factors[w][i] - delta[i]);
                        p[i] = weight * factors[w][i];
                    }
                }
            }
        }
    }
}
