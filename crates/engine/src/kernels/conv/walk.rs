//! Which element of x a position and a tap meet at, and how a kernel is told.

use smallvec::SmallVec;

use crate::kernel::Scalar;

/// Sizes of a correlation: a position q of `out` and a tap t of `taps` meet at
/// x[q · stride + first + t · step], which is 0 outside of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    pub batch: usize,
    pub groups: usize,
    /// Channels of y in a group.
    pub rows: usize,
    /// Channels of x in a group.
    pub channels: usize,
    pub size: [usize; 3],
    pub out: [usize; 3],
    pub taps: [usize; 3],
    pub stride: [usize; 3],
    pub first: [isize; 3],
    pub step: [isize; 3],
}

/// The largest kernel size and stride that a launch can be told.
pub const LARGEST: usize = i16::MAX as usize;

/// The outermost dimension that can be cut into slices, and what a slice reads and writes.
pub struct Cut {
    pub slices: usize,
    /// Elements of y in a slice.
    pub o_slice: usize,
    /// Elements of x from one slice's first to the next one's.
    pub x_slice: usize,
    /// Elements of a channel that a slice reads, from the first to the last.
    pub x_cell: usize,
    /// Where the first slice starts.
    pub x_shift: isize,
}

/// What one launch does of it.
pub struct Counts {
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

/// `o` is y or its gradient, `w` the weight or its gradient. `pace_*` hold a stride in their lower
/// half and a step in their upper; `tap_hw` the sizes of a kernel's two inner dimensions.
pub const SCALARS: [Scalar; 27] = {
    use Scalar::U32 as S;
    [
        S("batch"),
        S("group_count"),
        S("rows"),
        S("channels"),
        S("start"),
        S("positions"),
        S("x_base"),
        S("accumulate"),
        S("x_batch"),
        S("x_group"),
        S("w_row"),
        S("o_row"),
        S("o_group"),
        S("o_batch"),
        S("out_h"),
        S("out_w"),
        S("size_d"),
        S("size_h"),
        S("size_w"),
        S("tap_d"),
        S("tap_hw"),
        S("pace_d"),
        S("pace_h"),
        S("pace_w"),
        S("first_d"),
        S("first_h"),
        S("first_w"),
    ]
};

impl Walk {
    /// Elements of a channel of x.
    pub fn image(&self) -> usize {
        self.size.iter().product()
    }

    pub fn taps(&self) -> usize {
        self.taps.iter().product()
    }

    /// Elements of a channel of y.
    pub fn positions(&self) -> usize {
        self.out.iter().product()
    }

    pub fn cut(&self) -> Cut {
        let d = (0..2).find(|d| self.size[*d] > 1 || self.out[*d] > 1).unwrap_or(2);
        let inner: usize = self.size[d + 1..].iter().product();
        let reach = (self.taps[d] - 1) as isize * self.step[d];
        Cut {
            slices: self.out[d],
            o_slice: self.out[d + 1..].iter().product(),
            x_slice: self.stride[d] * inner,
            x_cell: (reach.unsigned_abs() + 1) * inner,
            x_shift: (self.first[d] + reach.min(0)) * inner as isize,
        }
    }

    pub fn scalars(&self, n: &Counts) -> SmallVec<[u32; 24]> {
        let x_group = self.channels * self.image();
        let o_group = self.rows * self.positions();
        let pace = |d: usize| self.stride[d] as u32 | (self.step[d] as i16 as u16 as u32) << 16;
        let mut scalars: SmallVec<[u32; 24]> = [n.batch, n.groups, n.rows, n.channels, n.from, n.positions]
            .map(|v| v as u32)
            .into_iter()
            .collect();
        scalars.extend([n.x_base, n.accumulate as u32]);
        let strides = [
            self.groups * x_group,
            x_group,
            self.channels * self.taps(),
            self.positions(),
            o_group,
            self.groups * o_group,
        ];
        let sizes = [self.out[1], self.out[2], self.size[0], self.size[1], self.size[2]];
        scalars.extend(strides.iter().chain(&sizes).map(|v| *v as u32));
        scalars.extend([self.taps[0] as u32, self.taps[1] as u32 | (self.taps[2] as u32) << 16]);
        scalars.extend([pace(0), pace(1), pace(2)]);
        scalars.extend(self.first.map(|v| v as i32 as u32));
        scalars
    }
}
