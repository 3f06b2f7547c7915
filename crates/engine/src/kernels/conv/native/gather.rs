//! Gathers the elements of x for positions and taps into rows: one row per tap, one column per position.

use lowrank_cpu::simd::{Lanes, vectorised};

use crate::kernel::native::NativeLaunch;
use crate::kernels::conv::geometry::Scalars;

/// The scalars of a launch; see `geometry.rs`.
pub struct View {
    pub batch: usize,
    pub groups: usize,
    pub rows: usize,
    pub channels: usize,
    from: usize,
    pub positions: usize,
    x_base: isize,
    pub accumulate: bool,
    x_batch: usize,
    x_group: usize,
    pub w_row: usize,
    pub o_row: usize,
    pub o_group: usize,
    pub o_batch: usize,
    /// Rows of a group; a launch may compute a part of them.
    pub all_rows: usize,
    out: [usize; 2],
    size: [isize; 3],
    taps: [usize; 3],
    stride: [isize; 3],
    step: [isize; 3],
    first: [isize; 3],
}

/// Positions that are consecutive along the innermost dimension.
pub struct Run {
    column: usize,
    count: usize,
    /// The coordinates in x of the first position and tap 0.
    at: [isize; 3],
}

impl View {
    pub fn from_launch(l: &NativeLaunch) -> View {
        let s: Scalars = l.scalars();
        let paces = [s.pace_d, s.pace_h, s.pace_w];
        let lower = |word: u32| (word & 0xffff) as usize;
        View {
            batch: s.batch,
            groups: s.group_count,
            rows: s.rows,
            channels: s.channels,
            from: s.start,
            positions: s.positions,
            x_base: s.x_base as i32 as isize,
            accumulate: s.accumulate,
            x_batch: s.x_batch,
            x_group: s.x_group,
            w_row: s.w_row,
            o_row: s.o_row,
            o_group: s.o_group,
            o_batch: s.o_batch,
            all_rows: s.o_group / s.o_row,
            out: [s.out_h, s.out_w],
            size: [s.size_d, s.size_h, s.size_w].map(|v| v as isize),
            taps: [s.tap_d, lower(s.tap_hw), (s.tap_hw >> 16) as usize],
            stride: paces.map(|v| lower(v) as isize),
            step: paces.map(|v| (v as i32 >> 16) as isize),
            first: [s.first_d, s.first_h, s.first_w].map(|v| v as isize),
        }
    }

    pub fn taps(&self) -> usize {
        self.taps.iter().product()
    }

    /// The index in the binding of x at which the first image of a group starts, or would start.
    pub fn origin(&self, batch: usize, group: usize) -> isize {
        self.x_base + (batch * self.x_batch + group * self.x_group) as isize
    }

    /// The runs of `count` positions from position `start` of the launch on.
    pub fn list_runs(&self, start: usize, count: usize) -> Vec<Run> {
        let [out_h, out_w] = self.out;
        let mut runs = Vec::with_capacity(count / out_w + 2);
        let mut column = 0;
        while column < count {
            let q = self.from + start + column;
            let at = [q / (out_h * out_w), q / out_w % out_h, q % out_w];
            let length = (out_w - at[2]).min(count - column);
            let at = std::array::from_fn(|d| at[d] as isize * self.stride[d] + self.first[d]);
            runs.push(Run { column, count: length, at });
            column += length;
        }
        runs
    }
}

/// The range of `count` positions from `at` on, with distance `stride`, that are within 0..size.
#[inline(always)]
fn clip_range(at: isize, stride: isize, size: isize, count: usize) -> (usize, usize) {
    // The first position at or after `bound`.
    let find_first = |bound: isize| {
        let distance = (bound - at).max(0);
        let steps = if stride == 1 { distance } else { (distance + stride - 1) / stride };
        (steps as usize).min(count)
    };
    (find_first(0), find_first(size))
}

/// Copies contiguous elements.
///
/// # Safety
/// The processor has L's instructions, and the pointers cover `count` elements.
#[inline(always)]
unsafe fn copy<L: Lanes>(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut at = 0;
        // Two vectors per iteration: compilers turn a loop over one vector into a call, which costs more than a run's
        // copy.
        while at + 2 * L::LANES <= count {
            let two = [L::load(from.add(at)), L::load(from.add(at + L::LANES))];
            two[0].store(to.add(at));
            two[1].store(to.add(at + L::LANES));
            at += 2 * L::LANES;
        }
        if at + L::LANES <= count {
            L::load(from.add(at)).store(to.add(at));
            at += L::LANES;
        }
        if at < count && count >= L::LANES {
            L::load(from.add(count - L::LANES)).store(to.add(count - L::LANES));
        } else if at < count {
            L::load_first(from, count).store_first(to, count);
        }
    }
}

vectorised! {
    /// Fills row i of `to` (row stride `row`) with the elements of x for the positions of `list_runs` and tap `from` +
    /// i. Element 0 of the first channel has the index `origin` in x.
    pub fn gather(
        x: &[f32],
        origin: isize,
        view: &View,
        from: usize,
        count: usize,
        runs: &[Run],
        row: usize,
        to: &mut [f32],
    ) {
        let [size_d, size_h, size_w] = view.size;
        let [taps_d, taps_h, taps_w] = view.taps;
        let stride = view.stride[2];
        let mut w = from % taps_w;
        let mut h = from / taps_w % taps_h;
        let mut d = from / (taps_w * taps_h) % taps_d;
        let mut image = origin + (from / view.taps()) as isize * (size_d * size_h * size_w);
        for to in to.chunks_mut(row).take(count) {
            let step = [d as isize * view.step[0], h as isize * view.step[1], w as isize * view.step[2]];
            for run in runs {
                let to = &mut to[run.column..run.column + run.count];
                let [at_d, at_h, at_w] = [run.at[0] + step[0], run.at[1] + step[1], run.at[2] + step[2]];
                if at_d < 0 || at_d >= size_d || at_h < 0 || at_h >= size_h {
                    to.fill(0.0);
                    continue;
                }
                let (low, high) = clip_range(at_w, stride, size_w, run.count);
                let at = image + (at_d * size_h + at_h) * size_w + at_w;
                if stride == 1 && at >= 0 && at as usize + run.count <= x.len() {
                    // Elements outside of the line are copied, too, and cleared afterwards.
                    let x = &x[at as usize..at as usize + run.count];
                    // SAFETY: both have the run's length, and the processor has S's instructions.
                    unsafe { copy::<S::V>(x.as_ptr(), to.as_mut_ptr(), x.len()) };
                } else {
                    for (i, to) in to.iter_mut().enumerate().take(high).skip(low) {
                        *to = x[(at + i as isize * stride) as usize];
                    }
                }
                for to in &mut to[..low] {
                    *to = 0.0;
                }
                for to in &mut to[high..] {
                    *to = 0.0;
                }
            }
            w += 1;
            if w == taps_w {
                (w, h) = (0, h + 1);
                if h == taps_h {
                    (h, d) = (0, d + 1);
                    if d == taps_d {
                        d = 0;
                        image += size_d * size_h * size_w;
                    }
                }
            }
        }
    }
}
