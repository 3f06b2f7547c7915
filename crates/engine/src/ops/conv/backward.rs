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
use crate::kernels::conv::{ConvGeometry, Correlation, correlate};
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
    tap_step: usize,
    taps: usize,
    /// The position in d of the first element with the first tap, and its change from tap to tap.
    first: isize,
    step: isize,
}

impl Residues {
    fn new(geometry: &ConvGeometry, d: usize, residue: usize) -> Residues {
        let stride = geometry.stride[d] as isize;
        let position_of = |tap: usize| residue as isize - geometry.first[d] - tap as isize * geometry.step[d];
        let taps: Vec<usize> = (0..geometry.taps[d]).filter(|tap| position_of(*tap) % stride == 0).collect();
        let tap = taps.first().copied().unwrap_or(0);
        let tap_step = taps.get(1).map_or(1, |second| second - tap);
        Residues {
            from: residue,
            len: 1,
            count: (geometry.size[d] - residue).div_ceil(geometry.stride[d]),
            tap,
            tap_step,
            taps: taps.len(),
            first: position_of(tap) / stride,
            step: if taps.len() > 1 { -(tap_step as isize * geometry.step[d] / stride) } else { 0 },
        }
    }

    /// All residues of dimension `d`.
    fn list(geometry: &ConvGeometry, d: usize) -> Vec<Residues> {
        let mut all: Vec<Residues> = Vec::new();
        for residue in 0..geometry.stride[d].min(geometry.size[d]) {
            let one = Residues::new(geometry, d, residue);
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

/// Appends d_x for the convolution `geometry` of `weight`.
pub fn append_d_x(
    cx: &Rc<Context>,
    geometry: &ConvGeometry,
    d: &Value,
    weight: &Value,
    d_x: &Value,
) -> Result<()> {
    let all = [0, 1, 2].map(|d| Residues::list(geometry, d));
    // Some elements have no tap; their gradient is 0.
    if all.iter().flatten().any(|r| r.taps == 0) {
        cx.zero(d_x);
    }
    let weight = widen_halves(cx, weight)?;
    let with_taps = |d: usize| all[d].iter().copied().filter(|r| r.taps > 0);
    let planes = with_taps(0).flat_map(|a| with_taps(1).map(move |b| (a, b)));
    for residues in planes.flat_map(|(a, b)| with_taps(2).map(move |c| [a, b, c])) {
        let residue_count = residues.iter().map(|r| r.len).product::<usize>();
        let tap_weight = gather_taps(cx, geometry, &weight, &residues)?;
        let residue_geometry = ConvGeometry {
            rows: geometry.channels * residue_count,
            channels: geometry.rows,
            size: geometry.out,
            out: residues.map(|r| r.count),
            taps: residues.map(|r| r.taps),
            stride: [1; 3],
            first: residues.map(|r| r.first),
            step: residues.map(|r| r.step),
            ..*geometry
        };
        if geometry.stride == [1; 3] {
            correlate(
                cx,
                Correlation { geometry: &residue_geometry, x: d, w: &tap_weight, bias: None, y: d_x },
            )?;
            continue;
        }
        let part = cx.empty(
            [geometry.batch * geometry.groups * residue_geometry.rows, residue_geometry.positions()],
            DType::F32,
        )?;
        correlate(
            cx,
            Correlation { geometry: &residue_geometry, x: d, w: &tap_weight, bias: None, y: &part },
        )?;
        copy_residues(cx, geometry, &residues, &part, d_x)?;
    }
    Ok(())
}

/// Copies `part`, [planes, *residues, *counts], to the elements of d_x with these residues.
fn copy_residues(
    cx: &Rc<Context>,
    geometry: &ConvGeometry,
    [a, b, c]: &[Residues; 3],
    part: &Value,
    d_x: &Value,
) -> Result<()> {
    let [_, h, w] = geometry.size;
    let positions = a.count * b.count * c.count;
    let dims =
        [geometry.batch * geometry.groups * geometry.channels, b.len, c.len, a.count, b.count, c.count];
    let from =
        [a.len * b.len * c.len * positions, c.len * positions, positions, b.count * c.count, c.count, 1];
    let [s0, s1, s2] = geometry.stride;
    let to = [geometry.image(), w, 1, s0 * h * w, s1 * w, s2];
    for r in 0..a.len {
        let from = Side { value: part, start: r * b.len * c.len * positions, strides: from[..].into() };
        let start = ((a.from + r) * h + b.from) * w + c.from;
        copy(cx, "conv", &dims, &from, &Side { value: d_x, start, strides: to[..].into() })?;
    }
    Ok(())
}

/// Returns the weight in a dtype that `copy` supports: on a GPU, half types are widened.
fn widen_halves(cx: &Rc<Context>, weight: &Value) -> Result<Value> {
    if weight.dtype == DType::F32 || cx.profile.kind == Kind::Cpu {
        return Ok(weight.clone());
    }
    let wide = cx.empty(weight.shape.clone(), DType::F32)?;
    cast(cx, weight, &wide)?;
    Ok(wide)
}

/// Returns the taps of the residues, with the channels of x for each residue as rows:
/// [groups, C / groups, *residues, O / groups, *taps].
fn gather_taps(
    cx: &Rc<Context>,
    geometry: &ConvGeometry,
    weight: &Value,
    residues: &[Residues; 3],
) -> Result<Value> {
    let [_, t1, t2] = geometry.taps;
    let [a, b, c] = residues;
    let row = geometry.channels * geometry.taps();
    let dims = [geometry.groups, geometry.channels, geometry.rows, a.taps, b.taps, c.taps];
    let strides =
        [geometry.rows * row, geometry.taps(), row, a.tap_step * t1 * t2, b.tap_step * t2, c.tap_step];
    let taps = a.taps * b.taps * c.taps;
    let residue_count = a.len * b.len * c.len;
    let block = geometry.rows * taps;
    let tap_weight = cx.empty([geometry.groups * geometry.channels * residue_count, block], weight.dtype)?;
    let to =
        [geometry.channels * residue_count * block, residue_count * block, taps, b.taps * c.taps, c.taps, 1];
    for r in 0..residue_count {
        let [i, j, k] = [r / (b.len * c.len), r / c.len % b.len, r % c.len];
        let start = ((a.tap + i) * t1 + b.tap + j) * t2 + c.tap + k;
        let from = Side { value: weight, start, strides: strides[..].into() };
        copy(
            cx,
            "conv",
            &dims,
            &from,
            &Side { value: &tap_weight, start: r * block, strides: to[..].into() },
        )?;
    }
    Ok(tap_weight)
}
