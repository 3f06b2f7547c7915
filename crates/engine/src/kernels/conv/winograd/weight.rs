//! The weight's transform, and its layout.

use lowrank_cpu::gemm::KernelTable;
use lowrank_cpu::simd::{Lanes, compiled};

use super::{ELEMENTS, IN, TAPS};

/// Most channels whose products are summed in registers: with a panel's V for all elements, half of a usual L2 of 1
/// MiB.
const MAX_BLOCK: usize = 256;

/// The layout of U: by group, block of channels, sliver (the rows of a register tile) and element; then the channels,
/// each with the sliver's rows. So products read it sequentially.
#[derive(Clone, Copy)]
pub struct WeightLayout {
    pub rows: usize,
    pub channels: usize,
    /// Channels per block: their number alone decides.
    pub part: usize,
    pub slivers: usize,
}

impl WeightLayout {
    pub fn new(table: &KernelTable, rows: usize, channels: usize) -> WeightLayout {
        let part = channels.div_ceil(channels.div_ceil(MAX_BLOCK));
        WeightLayout { rows, channels, part, slivers: rows.div_ceil(table.tiles.rows()) }
    }

    /// The first row of a sliver and its number of rows; rows are distributed evenly.
    pub fn sliver_rows(&self, s: usize) -> (usize, usize) {
        let row = |s: usize| s * self.rows / self.slivers;
        (row(s), row(s + 1) - row(s))
    }

    /// The first channel of each block and its number of channels.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let WeightLayout { part, channels, .. } = *self;
        (0..channels).step_by(part).map(move |from| (from, part.min(channels - from)))
    }

    /// The start of a sliver's elements for the `len` channels from `from` on.
    pub fn offset(&self, group: usize, from: usize, len: usize, row: usize) -> usize {
        ELEMENTS * (group * self.rows * self.channels + self.rows * from + row * len)
    }
}

/// Leading dimension of widened taps: the elements of the widest vector, and the most rows of a sliver.
pub const WIDE: usize = 16;

compiled! {
    exact
    /// Computes G·w·Gᵀ of `rows` rows and `len` channels. A channel's taps in `w` are contiguous, the row stride is
    /// `row`; the elements of `u` have a stride of `step`.
    ///
    /// # Safety
    /// The operands cover the rows and channels.
    pub fn transform(w: *const f32, row: usize, rows: usize, len: usize, reverse: [bool; 2], u: *mut f32, step: usize) {
        debug_assert!(rows <= WIDE);
        // SAFETY: guaranteed by the caller; a vector of taps is within WIDE.
        unsafe {
            let half = S::V::splat(0.5);
            let mut taps = [[0f32; WIDE]; TAPS * TAPS];
            let tap_of = |h: usize, w: usize| {
                let tap_index = |t: usize, reverse: bool| if reverse { TAPS - 1 - t } else { t };
                tap_index(h, reverse[0]) * TAPS + tap_index(w, reverse[1])
            };
            for channel in 0..len {
                for i in 0..rows {
                    let w = w.add(i * row + channel * TAPS * TAPS);
                    for (t, taps) in taps.iter_mut().enumerate() {
                        taps[i] = *w.add(t);
                    }
                }
                for v in (0..rows).step_by(S::WIDTH) {
                    let mut lines = [[S::zero(); TAPS]; IN];
                    for w in 0..TAPS {
                        let [a, b, c] = [0, 1, 2].map(|h| taps[tap_of(h, w)].as_ptr().add(v));
                        let (a, b, c) = (S::V::load(a), S::V::load(b), S::V::load(c));
                        let ends = a.add(c);
                        lines[0][w] = a;
                        lines[1][w] = ends.add(b).mul(half);
                        lines[2][w] = ends.sub(b).mul(half);
                        lines[3][w] = c;
                    }
                    for (h, [a, b, c]) in lines.into_iter().enumerate() {
                        let ends = a.add(c);
                        let four = [a, ends.add(b).mul(half), ends.sub(b).mul(half), c];
                        for (w, element) in four.into_iter().enumerate() {
                            let to = u.add((h * IN + w) * step + channel * rows + v);
                            element.store_first(to, S::WIDTH.min(rows - v));
                        }
                    }
                }
            }
        }
    }
}
