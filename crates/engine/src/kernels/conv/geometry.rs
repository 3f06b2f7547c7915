//! The sizes of a correlation and the scalars of its kernels.

use crate::scalars;

/// The sizes of a correlation: position q of `out` and tap t of `taps` read x[q · stride + first + t · step], which is
/// 0 outside of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    pub batch: usize,
    pub groups: usize,
    /// Channels of y per group.
    pub rows: usize,
    /// Channels of x per group.
    pub channels: usize,
    pub size: [usize; 3],
    pub out: [usize; 3],
    pub taps: [usize; 3],
    pub stride: [usize; 3],
    pub first: [isize; 3],
    pub step: [isize; 3],
}

/// The largest kernel size and stride that the scalars can hold.
pub const LARGEST: usize = i16::MAX as usize;

/// The outermost dimension that can be split into slices, and the sizes of a slice.
pub struct Slicing {
    pub slices: usize,
    /// Elements of y per slice.
    pub o_slice: usize,
    /// Elements of x from slice to slice.
    pub x_slice: usize,
    /// Elements of a channel that a slice reads, from the first to the last.
    pub x_cell: usize,
    /// The offset of the first slice.
    pub x_shift: isize,
}

/// The part of a correlation that one launch computes.
pub struct LaunchCounts {
    pub batch: usize,
    pub groups: usize,
    pub rows: usize,
    pub channels: usize,
    /// The first position, counted over all of `out`.
    pub from: usize,
    pub positions: usize,
    pub x_base: u32,
    pub accumulate: bool,
}

scalars! {
    /// `o` is y or its gradient, `w` the weight or its gradient. `pace_*` hold a stride in their lower half and a step
    /// in their upper; `tap_hw` holds the sizes of a kernel's two inner dimensions.
    pub(super) struct Scalars {
        batch: usize,
        group_count: usize,
        rows: usize,
        channels: usize,
        start: usize,
        positions: usize,
        x_base: u32,
        accumulate: bool,
        x_batch: usize,
        x_group: usize,
        w_row: usize,
        o_row: usize,
        o_group: usize,
        o_batch: usize,
        out_h: usize,
        out_w: usize,
        size_d: usize,
        size_h: usize,
        size_w: usize,
        tap_d: usize,
        tap_hw: u32,
        pace_d: u32,
        pace_h: u32,
        pace_w: u32,
        first_d: i32,
        first_h: i32,
        first_w: i32,
    }
}

impl ConvGeometry {
    /// Elements per channel of x.
    pub fn image(&self) -> usize {
        self.size.iter().product()
    }

    pub fn taps(&self) -> usize {
        self.taps.iter().product()
    }

    /// Elements per channel of y.
    pub fn positions(&self) -> usize {
        self.out.iter().product()
    }

    pub fn slice_outermost(&self) -> Slicing {
        let d = (0..2).find(|d| self.size[*d] > 1 || self.out[*d] > 1).unwrap_or(2);
        let inner: usize = self.size[d + 1..].iter().product();
        let reach = (self.taps[d] - 1) as isize * self.step[d];
        Slicing {
            slices: self.out[d],
            o_slice: self.out[d + 1..].iter().product(),
            x_slice: self.stride[d] * inner,
            x_cell: (reach.unsigned_abs() + 1) * inner,
            x_shift: (self.first[d] + reach.min(0)) * inner as isize,
        }
    }

    pub(super) fn scalars(&self, n: &LaunchCounts) -> Scalars {
        let x_group = self.channels * self.image();
        let o_group = self.rows * self.positions();
        let pace = |d: usize| self.stride[d] as u32 | (self.step[d] as i16 as u16 as u32) << 16;
        let [size_d, size_h, size_w] = self.size;
        let [first_d, first_h, first_w] = self.first.map(|v| v as i32);
        Scalars {
            batch: n.batch,
            group_count: n.groups,
            rows: n.rows,
            channels: n.channels,
            start: n.from,
            positions: n.positions,
            x_base: n.x_base,
            accumulate: n.accumulate,
            x_batch: self.groups * x_group,
            x_group,
            w_row: self.channels * self.taps(),
            o_row: self.positions(),
            o_group,
            o_batch: self.groups * o_group,
            out_h: self.out[1],
            out_w: self.out[2],
            size_d,
            size_h,
            size_w,
            tap_d: self.taps[0],
            tap_hw: self.taps[1] as u32 | (self.taps[2] as u32) << 16,
            pace_d: pace(0),
            pace_h: pace(1),
            pace_w: pace(2),
            first_d,
            first_h,
            first_w,
        }
    }
}
