//! The gradient of the input.
//!
//! Element i of x met tap t at position (i + padding − t·dilation) / stride, where that is whole.
//! Whether it is depends on i's residue by the stride only: for each residue, d_x is a correlation of
//! d, at stride 1, with those taps that meet it.

use std::rc::Rc;

use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::cast::cast;
use crate::kernels::conv::{Walk, correlate};
use crate::kernels::copy::{Side, copy};
use crate::shape::Shape;
use crate::tensor::{Context, Value};

/// One dimension for one residue.
struct Residue {
    /// Elements of x with this residue.
    count: usize,
    /// The taps that meet them: the first, how far apart, how many.
    tap: usize,
    apart: usize,
    taps: usize,
    /// Where the first element meets the first tap in d, and what a tap further moves that by.
    first: isize,
    step: isize,
}

impl Residue {
    fn of(walk: &Walk, d: usize, residue: usize) -> Residue {
        let stride = walk.stride[d] as isize;
        let place = |tap: usize| residue as isize - walk.first[d] - tap as isize * walk.step[d];
        let taps: Vec<usize> = (0..walk.taps[d]).filter(|tap| place(*tap) % stride == 0).collect();
        let tap = taps.first().copied().unwrap_or(0);
        let apart = taps.get(1).map_or(1, |second| second - tap);
        Residue {
            count: (walk.size[d] - residue).div_ceil(walk.stride[d]),
            tap,
            apart,
            taps: taps.len(),
            first: place(tap) / stride,
            step: if taps.len() > 1 { -(apart as isize * walk.step[d] / stride) } else { 0 },
        }
    }
}

/// d_x for the convolution `walk` of `weight`; `x` is its shape.
pub fn d_x(cx: &Rc<Context>, walk: &Walk, d: &Value, weight: &Value, x: &Shape) -> Result<Value> {
    let d_x = cx.empty(x.clone(), DType::F32)?;
    let mut residues = Vec::new();
    for d in 0..walk.stride[0].min(walk.size[0]) {
        for h in 0..walk.stride[1].min(walk.size[1]) {
            for w in 0..walk.stride[2].min(walk.size[2]) {
                let at = [d, h, w];
                residues.push((at, [0, 1, 2].map(|d| Residue::of(walk, d, at[d]))));
            }
        }
    }
    // Elements that no tap meets.
    if residues.iter().any(|(_, r)| r.iter().any(|r| r.taps == 0)) {
        cx.zero(&d_x);
    }
    let weight = copyable(cx, weight)?;
    let whole = residues.len() == 1;
    for (at, residue) in residues.iter().filter(|(_, r)| r.iter().all(|r| r.taps > 0)) {
        let turned = turned(cx, walk, &weight, residue)?;
        let of = |f: fn(&Residue) -> isize| [0, 1, 2].map(|d| f(&residue[d]));
        let back = Walk {
            rows: walk.channels,
            channels: walk.rows,
            size: walk.out,
            out: [0, 1, 2].map(|d| residue[d].count),
            taps: [0, 1, 2].map(|d| residue[d].taps),
            stride: [1; 3],
            first: of(|r| r.first),
            step: of(|r| r.step),
            ..*walk
        };
        if whole {
            correlate(cx, &back, d, &turned, None, &d_x)?;
            continue;
        }
        let planes = walk.batch * walk.groups * walk.channels;
        let [n0, n1, n2] = back.out;
        let part = cx.empty([planes, n0, n1, n2], DType::F32)?;
        correlate(cx, &back, d, &turned, None, &part)?;
        let [_, h, w] = walk.size;
        let [s0, s1, s2] = walk.stride;
        let strides = [walk.image(), s0 * h * w, s1 * w, s2];
        let start = (at[0] * h + at[1]) * w + at[2];
        let to = Side { value: &d_x, start, strides: strides[..].into() };
        copy(cx, "conv", &part.shape, &Side::whole(&part), &to)?;
    }
    Ok(d_x)
}

/// The weight as `copy` takes it: on a GPU, half types are widened.
fn copyable(cx: &Rc<Context>, weight: &Value) -> Result<Value> {
    if weight.dtype == DType::F32 || cx.profile.kind == Kind::Cpu {
        return Ok(weight.clone());
    }
    let wide = cx.empty(weight.shape.clone(), DType::F32)?;
    cast(cx, weight, &wide)?;
    Ok(wide)
}

/// The taps of a residue, with the channels of x as rows: [groups, C / groups, O / groups, taps].
fn turned(cx: &Rc<Context>, walk: &Walk, weight: &Value, residue: &[Residue; 3]) -> Result<Value> {
    let [_, t1, t2] = walk.taps;
    let row = walk.channels * walk.taps();
    let [r0, r1, r2] = residue;
    let dims = [walk.groups, walk.channels, walk.rows, r0.taps, r1.taps, r2.taps];
    let strides = [walk.rows * row, walk.taps(), row, r0.apart * t1 * t2, r1.apart * t2, r2.apart];
    let start = (r0.tap * t1 + r1.tap) * t2 + r2.tap;
    let turned = cx.empty(dims, weight.dtype)?;
    let from = Side { value: weight, start, strides: strides[..].into() };
    copy(cx, "conv", &dims, &from, &Side::whole(&turned))?;
    Ok(turned)
}
