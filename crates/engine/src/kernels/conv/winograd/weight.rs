//! The weight's transform, and where it lies.

use super::{IN, PLACES, TAPS};
use crate::kernels::gemm::native::Loops;
use crate::simd::{Lanes, compiled};

/// Channels whose products are summed in registers, at most: with a panel's V of all places, half of a usual L2
/// of a mebibyte.
const PART: usize = 256;

/// Where U lies: by group, part of the channels, sliver (the rows of a tile of registers) and place, the channels one
/// after another, of each the sliver's rows. So products read it from its first element to its last.
#[derive(Clone, Copy)]
pub struct Factor {
    pub rows: usize,
    pub channels: usize,
    /// Channels of a part: their number alone decides.
    pub part: usize,
    pub slivers: usize,
}

impl Factor {
    pub fn new(loops: &Loops, rows: usize, channels: usize) -> Factor {
        let part = channels.div_ceil(channels.div_ceil(PART));
        Factor { rows, channels, part, slivers: rows.div_ceil(loops.tiles.rows()) }
    }

    /// The first row of a sliver, and its rows: they are spread evenly.
    pub fn sliver(&self, s: usize) -> (usize, usize) {
        let row = |s: usize| s * self.rows / self.slivers;
        (row(s), row(s + 1) - row(s))
    }

    /// The first channel of each part, and its channels.
    pub fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let Factor { part, channels, .. } = *self;
        (0..channels).step_by(part).map(move |from| (from, part.min(channels - from)))
    }

    /// Where a sliver's elements start for the `len` channels from `from` on.
    pub fn start(&self, group: usize, from: usize, len: usize, row: usize) -> usize {
        PLACES * (group * self.rows * self.channels + self.rows * from + row * len)
    }
}

/// Columns that taps are laid apart by: the widest vector's elements, and the most rows of a sliver.
pub const WIDE: usize = 16;

compiled! {
    exact
    /// G·w·Gᵀ of `rows` rows and `len` channels: `w` has a channel's taps one after another and rows `row` apart. The
    /// places of `u` are `step` apart.
    ///
    /// # Safety
    /// The operands reach over the rows and channels.
    pub fn transform(w: *const f32, row: usize, rows: usize, len: usize, turn: [bool; 2], u: *mut f32, step: usize) {
        debug_assert!(rows <= WIDE);
        // SAFETY: the caller's; a vector of taps lies within WIDE.
        unsafe {
            let half = S::V::splat(0.5);
            let mut taps = [[0f32; WIDE]; TAPS * TAPS];
            let tap_of = |h: usize, w: usize| {
                let turned = |t: usize, turn: bool| if turn { TAPS - 1 - t } else { t };
                turned(h, turn[0]) * TAPS + turned(w, turn[1])
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
                        for (w, place) in four.into_iter().enumerate() {
                            let to = u.add((h * IN + w) * step + channel * rows + v);
                            place.store_first(to, S::WIDTH.min(rows - v));
                        }
                    }
                }
            }
        }
    }
}
