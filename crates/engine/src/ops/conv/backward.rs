//! The gradient of the input.
//!
//! Element i of x is multiplied by tap t at position (i + padding − t·dilation) / stride, if that is an integer. This
//! depends only on i's residue modulo the stride: for each residue, d_x is a correlation of d, at stride 1, with the
//! taps of that residue. Residues with the same positions in d are computed together, as more rows: patches of 16 × 16
//! at a stride of 16 took 256 passes over d before.

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernels::cast::cast;
use crate::kernels::conv::{Correlation, Walk, correlate};
use crate::kernels::copy::{Side, copy};
use crate::profile::Kind;

/// Neighbouring residues of one dimension with equal tap patterns, each shifted by one tap from the one before. If
/// kernel and stride have equal size, these are all residues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Residues {
    /// The first residue, and the number of residues.
    from: usize,
    len: usize,
    /// The number of elements of x with each residue.
    count: usize,
    /// The taps of the first residue: first tap, distance, number.
    tap: usize,
    apart: usize,
    taps: usize,
    /// The position in d of the first element with the first tap, and its change from tap to tap.
    first: isize,
    step: isize,
}

impl Residues {
    fn one(walk: &Walk, d: usize, residue: usize) -> Residues {
        let stride = walk.stride[d] as isize;
        let place = |tap: usize| residue as isize - walk.first[d] - tap as isize * walk.step[d];
        let taps: Vec<usize> = (0..walk.taps[d]).filter(|tap| place(*tap) % stride == 0).collect();
        let tap = taps.first().copied().unwrap_or(0);
        let apart = taps.get(1).map_or(1, |second| second - tap);
        Residues {
            from: residue,
            len: 1,
            count: (walk.size[d] - residue).div_ceil(walk.stride[d]),
            tap,
            apart,
            taps: taps.len(),
            first: place(tap) / stride,
            step: if taps.len() > 1 { -(apart as isize * walk.step[d] / stride) } else { 0 },
        }
    }

    /// All residues of dimension `d`.
    fn all(walk: &Walk, d: usize) -> Vec<Residues> {
        let mut all: Vec<Residues> = Vec::new();
        for residue in 0..walk.stride[d].min(walk.size[d]) {
            let one = Residues::one(walk, d, residue);
            match all.last_mut() {
                Some(r) if (Residues { from: r.from + r.len, tap: r.tap + r.len, len: 1, ..*r }) == one => {
                    r.len += 1;
                }
                _ => all.push(one),
            }
        }
        all
    }
}

/// Appends d_x for the convolution `walk` of `weight`.
pub fn d_x(cx: &Rc<Context>, walk: &Walk, d: &Value, weight: &Value, d_x: &Value) -> Result<()> {
    let all = [0, 1, 2].map(|d| Residues::all(walk, d));
    // Some elements have no tap; their gradient is 0.
    if all.iter().flatten().any(|r| r.taps == 0) {
        cx.zero(d_x);
    }
    let weight = copyable(cx, weight)?;
    let met = |d: usize| all[d].iter().copied().filter(|r| r.taps > 0);
    let planes = met(0).flat_map(|a| met(1).map(move |b| (a, b)));
    for residues in planes.flat_map(|(a, b)| met(2).map(move |c| [a, b, c])) {
        let each = residues.iter().map(|r| r.len).product::<usize>();
        let turned = turn_weight(cx, walk, &weight, &residues)?;
        let back = Walk {
            rows: walk.channels * each,
            channels: walk.rows,
            size: walk.out,
            out: residues.map(|r| r.count),
            taps: residues.map(|r| r.taps),
            stride: [1; 3],
            first: residues.map(|r| r.first),
            step: residues.map(|r| r.step),
            ..*walk
        };
        if walk.stride == [1; 3] {
            correlate(cx, Correlation { walk: &back, x: d, w: &turned, bias: None, y: d_x })?;
            continue;
        }
        let part = cx.empty([walk.batch * walk.groups * back.rows, back.positions()], DType::F32)?;
        correlate(cx, Correlation { walk: &back, x: d, w: &turned, bias: None, y: &part })?;
        place(cx, walk, &residues, &part, d_x)?;
    }
    Ok(())
}

/// Copies `part`, [planes, *residues, *counts], to the elements of d_x with these residues.
fn place(cx: &Rc<Context>, walk: &Walk, [a, b, c]: &[Residues; 3], part: &Value, d_x: &Value) -> Result<()> {
    let [_, h, w] = walk.size;
    let positions = a.count * b.count * c.count;
    let dims = [walk.batch * walk.groups * walk.channels, b.len, c.len, a.count, b.count, c.count];
    let from =
        [a.len * b.len * c.len * positions, c.len * positions, positions, b.count * c.count, c.count, 1];
    let [s0, s1, s2] = walk.stride;
    let to = [walk.image(), w, 1, s0 * h * w, s1 * w, s2];
    for r in 0..a.len {
        let from = Side { value: part, start: r * b.len * c.len * positions, strides: from[..].into() };
        let start = ((a.from + r) * h + b.from) * w + c.from;
        copy(cx, "conv", &dims, &from, &Side { value: d_x, start, strides: to[..].into() })?;
    }
    Ok(())
}

/// Returns the weight in a dtype that `copy` supports: on a GPU, half types are widened.
fn copyable(cx: &Rc<Context>, weight: &Value) -> Result<Value> {
    if weight.dtype == DType::F32 || cx.profile.kind == Kind::Cpu {
        return Ok(weight.clone());
    }
    let wide = cx.empty(weight.shape.clone(), DType::F32)?;
    cast(cx, weight, &wide)?;
    Ok(wide)
}

/// Returns the taps of the residues, with the channels of x for each residue as rows:
/// [groups, C / groups, *residues, O / groups, *taps].
fn turn_weight(cx: &Rc<Context>, walk: &Walk, weight: &Value, residues: &[Residues; 3]) -> Result<Value> {
    let [_, t1, t2] = walk.taps;
    let [a, b, c] = residues;
    let row = walk.channels * walk.taps();
    let dims = [walk.groups, walk.channels, walk.rows, a.taps, b.taps, c.taps];
    let strides = [walk.rows * row, walk.taps(), row, a.apart * t1 * t2, b.apart * t2, c.apart];
    let taps = a.taps * b.taps * c.taps;
    let each = a.len * b.len * c.len;
    let block = walk.rows * taps;
    let turned = cx.empty([walk.groups * walk.channels * each, block], weight.dtype)?;
    let to = [walk.channels * each * block, each * block, taps, b.taps * c.taps, c.taps, 1];
    for r in 0..each {
        let [i, j, k] = [r / (b.len * c.len), r / c.len % b.len, r % c.len];
        let start = ((a.tap + i) * t1 + b.tap + j) * t2 + c.tap + k;
        let from = Side { value: weight, start, strides: strides[..].into() };
        copy(cx, "conv", &dims, &from, &Side { value: &turned, start: r * block, strides: to[..].into() })?;
    }
    Ok(turned)
}
