//! Correlations over a batch: the basis of convolutions and of both their gradients.
//!
//! Maths: y[b, g, m, q] = Σ_{c, t} W[g, m, c, t] · x[b, g, c, q·stride + first + t·step] + bias[g, m], with 0 outside
//! of x; and d_W[g, m, c, t] (+)= Σ_{b, q} d[b, g, m, q] · x[b, g, c, …]. q and t have three dimensions; missing ones
//! have size 1. Both are products of matrices. One factor is gathered from x as it is packed (implicit GEMM), so no
//! matrix of patches is stored.
//!
//! All sums are in f32: the first in ascending (c, t), the second in ascending (b, q), split into parts by the shape
//! alone.
//!
//! GPU: one element per lane, or the tiles of `gemm` (gemm/shader.rs has their counts; indices into x take about 20
//! registers more); plan.rs chooses. A gathered element is read once per tap, from the cache: for a 3 × 3 kernel one
//! read of nine is from memory. CPU: `gemm`'s tiles over gathered panels (native/), and Winograd's transforms for 3 × 3
//! taps at stride 1 and enough channels (winograd/).

mod geometry;
mod native;
pub mod plan;
mod shader;
#[cfg(test)]
pub(crate) mod tests;
mod winograd;

pub use geometry::{ConvGeometry, LARGEST};

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant, concat};
use crate::launch::{Bind, Window, for_each_window};
use geometry::{LaunchCounts, Scalars};
use plan::{Config, list_candidates};
use shader::Side;

type Binding = (&'static str, Access);
const X: Binding = ("x", Access::Read);
const W: Binding = ("w", Access::Read);
const BIAS: Binding = ("bias", Access::Read);

static CONV: Kernel = define_forward_kernel::<false>("conv", &[X, W, ("o", Access::ReadWrite)]);
static CONV_BIAS: Kernel =
    define_forward_kernel::<true>("conv_bias", &[X, W, BIAS, ("o", Access::ReadWrite)]);

const fn define_forward_kernel<const BIASED: bool>(
    name: &'static str,
    bindings: &'static [Binding],
) -> Kernel {
    Kernel {
        name,
        bindings,
        scalars: Scalars::members,
        implementations: Implementations::Both {
            wgsl: |params| shader::emit_body(params, Side::Out, BIASED),
            native: native::forward::<BIASED>,
        },
        variants: || list_variants(Side::Out, BIASED),
    }
}

static CONV_WEIGHT: Kernel = Kernel {
    name: "conv_weight",
    bindings: &[X, ("o", Access::Read), ("w", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| shader::emit_body(params, Side::Weight, false),
        native: native::weight,
    },
    variants: || list_variants(Side::Weight, false),
};

const TAP_KERNELS: [&Kernel; 3] = [&CONV, &CONV_BIAS, &CONV_WEIGHT];
pub const KERNELS: &[&Kernel] = &concat::<_, 6>(&TAP_KERNELS, &winograd::KERNELS);

fn list_variants(side: Side, bias: bool) -> Vec<Variant> {
    let storage: &[DType] = match side {
        Side::Out => &[DType::F32, DType::F16, DType::BF16],
        Side::Weight => &[DType::F32],
    };
    let list = |w: DType| {
        let mut dtypes = vec![DType::F32, w, DType::F32];
        dtypes.extend(bias.then_some(DType::F32));
        Config::list().into_iter().map(move |config| Variant {
            params: config.params(),
            dtypes: dtypes.clone(),
            threads: config.threads(),
        })
    };
    storage.iter().flat_map(|w| list(*w)).collect()
}

/// The variant of `matrices` products of `m` rows and `n` columns.
fn choose(_: &Context, matrices: usize, m: usize, n: usize) -> Config {
    list_candidates(matrices, m, n)[0]
}

/// A correlation y = W ⋆ x + bias. W is [groups · rows, channels, taps], y is [batch, groups · rows, out].
#[derive(Clone, Copy)]
pub struct Correlation<'a> {
    pub geometry: &'a ConvGeometry,
    pub x: &'a Value,
    pub w: &'a Value,
    pub bias: Option<&'a Value>,
    pub y: &'a Value,
}

/// Appends a correlation.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if one channel's share of one slice of the outermost dimension exceeds the binding limit.
pub fn correlate(cx: &Rc<Context>, c: Correlation) -> Result<()> {
    let geometry = c.geometry;
    if winograd::is_suitable(cx, geometry) {
        return winograd::correlate(cx, c);
    }
    correlate_as(cx, choose(cx, geometry.batch * geometry.groups, geometry.rows, geometry.positions()), c)
}

fn correlate_as(cx: &Rc<Context>, config: Config, c: Correlation) -> Result<()> {
    let Correlation { geometry, x, w, bias, y } = c;
    let slicing = geometry.slice_outermost();
    let (m, taps, image) = (geometry.rows, geometry.taps(), geometry.image());
    let [x_group, w_row, o_row] = [geometry.channels * image, geometry.channels * taps, geometry.positions()];
    // Batch, groups, rows, slices of the outermost dimension, channels.
    let space = [geometry.batch, geometry.groups, m, slicing.slices, geometry.channels];
    let mut binds = vec![
        Bind::new(x, &[geometry.groups * x_group, x_group, 0, slicing.x_slice, image], slicing.x_cell)
            .shift(slicing.x_shift),
        Bind::new(w, &[0, m * w_row, w_row, 0, taps], taps),
    ];
    binds.extend(bias.map(|bias| Bind::new(bias, &[0, m, 1, 0, 0], 1)));
    binds.push(Bind::new(
        y,
        &[geometry.groups * m * o_row, m * o_row, o_row, slicing.o_slice, 0],
        slicing.o_slice,
    ));
    let [height, width] = config.block();
    for_each_window(cx, "conv", &space, &[1, 1, height, 1, 1], &binds, |mut window| {
        let [batch, groups, rows, slices, channels] = [0, 1, 2, 3, 4].map(|d| window.count[d]);
        // The bias is added once, with the first part of the sum.
        let first = window.start[4] == 0;
        let with_bias = bias.is_some() && first;
        if bias.is_some() && !first {
            window.ranges.remove(2);
        }
        let counts = LaunchCounts {
            batch,
            groups,
            rows,
            channels,
            from: window.start[3] * slicing.o_slice,
            positions: slices * slicing.o_slice,
            x_base: compute_x_base(geometry, x, &window, [0, 1, 4]),
            accumulate: !first,
        };
        let config = config.restrict_to(channels * taps, w_row, &window.ranges[1]);
        let blocks = batch * groups * rows.div_ceil(height) * counts.positions.div_ceil(width);
        cx.launch(Launch {
            kernel: if with_bias { &CONV_BIAS } else { &CONV },
            params: config.params(),
            bindings: window.ranges,
            scalars: geometry.scalars(&counts).words(),
            groups: blocks as u32,
            threads: config.threads(),
            work: 2 * (batch * groups * rows * counts.positions * channels * taps) as u64,
        });
    })
}

/// Appends d_W = Σ d · x, or d_W += Σ d · x.
///
/// # Errors
/// As for `correlate`.
pub fn correlate_weight(
    cx: &Rc<Context>,
    geometry: &ConvGeometry,
    x: &Value,
    d: &Value,
    accumulate: bool,
    d_weight: &Value,
) -> Result<()> {
    if geometry.batch == 0 && !accumulate {
        cx.zero(d_weight);
    }
    let config = choose(cx, geometry.groups, geometry.rows, geometry.channels * geometry.taps());
    correlate_weight_as(cx, config, geometry, x, d, accumulate, d_weight)
}

fn correlate_weight_as(
    cx: &Rc<Context>,
    config: Config,
    geometry: &ConvGeometry,
    x: &Value,
    d: &Value,
    accumulate: bool,
    d_weight: &Value,
) -> Result<()> {
    let slicing = geometry.slice_outermost();
    let (m, taps, image) = (geometry.rows, geometry.taps(), geometry.image());
    let [x_group, w_row, o_row] = [geometry.channels * image, geometry.channels * taps, geometry.positions()];
    // Groups, rows, channels, and the dimensions of the sum: batch, slices of the outermost dimension.
    let space = [geometry.groups, m, geometry.channels, geometry.batch, slicing.slices];
    let binds = [
        Bind::new(x, &[x_group, 0, image, geometry.groups * x_group, slicing.x_slice], slicing.x_cell)
            .shift(slicing.x_shift),
        Bind::new(d, &[m * o_row, o_row, 0, geometry.groups * m * o_row, slicing.o_slice], slicing.o_slice),
        Bind::new(d_weight, &[m * w_row, w_row, taps, 0, 0], taps),
    ];
    let [height, width] = config.block();
    for_each_window(cx, "conv", &space, &[1, height, 1, 1, 1], &binds, |window| {
        let [groups, rows, channels, batch, slices] = [0, 1, 2, 3, 4].map(|d| window.count[d]);
        let counts = LaunchCounts {
            batch,
            groups,
            rows,
            channels,
            from: window.start[4] * slicing.o_slice,
            positions: slices * slicing.o_slice,
            x_base: compute_x_base(geometry, x, &window, [3, 0, 2]),
            accumulate: accumulate || window.start[3] > 0 || window.start[4] > 0,
        };
        let config = config.restrict_to(counts.positions, o_row, &window.ranges[1]);
        let blocks = groups * rows.div_ceil(height) * (channels * taps).div_ceil(width);
        cx.launch(Launch {
            kernel: &CONV_WEIGHT,
            params: config.params(),
            bindings: window.ranges,
            scalars: geometry.scalars(&counts).words(),
            groups: blocks as u32,
            threads: config.threads(),
            work: 2 * (batch * groups * rows * counts.positions * channels * taps) as u64,
        });
    })
}

/// The offset from an element's index, relative to the start of the window's first image, to its index in the binding;
/// it wraps if it is negative. `dims` are the dimensions of batch, group and channel.
fn compute_x_base(geometry: &ConvGeometry, x: &Value, window: &Window, dims: [usize; 3]) -> u32 {
    let [batch, group, channel] = dims.map(|d| window.start[d]);
    let image = ((batch * geometry.groups + group) * geometry.channels + channel) * geometry.image();
    let bound = window.ranges[0].offset as usize / x.dtype.bytes() - x.offset;
    (image as u32).wrapping_sub(bound as u32)
}
