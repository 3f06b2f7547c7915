//! Winograd's F(2×2, 3×3) on the CPU: correlations with 3 × 3 taps at stride 1 by 2.25 times fewer products.
//!
//! Maths: y is split into tiles of 2 × 2. A tile depends on 4 × 4 elements d of every channel of x. With
//!
//! ```text
//! Bᵀ = [1  0 −1  0]    G = [ 1   0   0]    Aᵀ = [1 1  1  0]
//!      [0  1  1  0]        [ ½   ½   ½]         [0 1 −1 −1]
//!      [0 −1  1  0]        [ ½  −½   ½]
//!      [0  1  0 −1]        [ 0   0   1]
//! ```
//!
//! V = Bᵀ·d·B and U = G·w·Gᵀ, a tile of y is Aᵀ·(Σ_c U ⊙ V)·A: one matrix product, [rows, channels] by [channels,
//! tiles], for each of the 16 elements of U and V, that is 16 multiply-adds per channel instead of 36. Source: Lavin
//! and Gray 2016, arXiv 1509.09308, section 4.1.
//!
//! Layout: U is in scratch memory of 16/9 the weight's elements (f32), in the order in which the products read it
//! (`WeightLayout`). A task has some panels of tiles, possibly of several images. It computes their V in a workspace that
//! fits L2, one block of the channels at a time; then, for groups of a few rows, the 16 products by `gemm`'s tiles and
//! the transform to y (native.rs).
//!
//! Rounding: U takes 4 roundings and is at most 9/4 of the largest |w|; V takes 2 and is at most 4 of the largest |x|;
//! the last transform takes 4. For one output, Σ|U|·|V| ≤ 64·C·max|w|·max|x|, in sums of C terms; the sum over taps has
//! 9·C·max|w|·max|x|, in one sum of 9·C terms. So to first order the error is at most 64·C·(C + 12)·2⁻²⁴·max|w|·max|x|,
//! for the sum over taps 81·C²·2⁻²⁴·max|w|·max|x|. On 256 channels of random numbers it is 0.58 of the error of the sum
//! over taps (a test limits it to 1). An infinity or NaN in x reaches all four outputs of each tile that depends on it,
//! and elements of x above a quarter of the largest f32 overflow in the transform.
//!
//! docs/design/measurements.md compares it with the sum over taps and with oneDNN.

mod native;
#[cfg(test)]
mod tests;
mod tiles;
mod weight;

use std::rc::Rc;

use super::{ConvGeometry, Correlation};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch};
use crate::profile::Kind;
use crate::scalars;

/// Outputs of a tile along a dimension, taps, input elements, and elements of a transform.
const OUT: usize = 2;
const TAPS: usize = 3;
const IN: usize = OUT + TAPS - 1;
const ELEMENTS: usize = IN * IN;

/// Fewest channels, and rows, for which the transforms pay.
const MIN_CHANNELS: usize = 32;
/// Fewest tiles for which the weight's transform pays.
const MIN_TILES: usize = 64;

scalars! {
    /// `turn_*`: the taps are reversed along that dimension.
    struct WeightScalars { groups: usize, rows: usize, channels: usize, turn_h: bool, turn_w: bool }
}

scalars! {
    /// `rows` and `channels` are per group; the first tap of output 0 is at `first_*`.
    struct Scalars {
        batch: usize,
        groups: usize,
        rows: usize,
        channels: usize,
        size: [usize; 2],
        out: [usize; 2],
        first_h: i32,
        first_w: i32,
    }
}

static WEIGHT: Kernel = Kernel {
    name: "winograd_weight",
    bindings: &[("w", Access::Read), ("u", Access::Write)],
    scalars: WeightScalars::members,
    implementations: Implementations::Native(native::run_transform_weight),
    variants: Vec::new,
};

static CONV: Kernel = Kernel {
    name: "winograd",
    bindings: &[("x", Access::Read), ("u", Access::Read), ("y", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Native(native::forward::<false>),
    variants: Vec::new,
};

static CONV_BIAS: Kernel = Kernel {
    name: "winograd_bias",
    bindings: &[("x", Access::Read), ("u", Access::Read), ("bias", Access::Read), ("y", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Native(native::forward::<true>),
    variants: Vec::new,
};

pub const KERNELS: [&Kernel; 3] = [&WEIGHT, &CONV, &CONV_BIAS];

/// Tiles of an image along both dimensions.
fn count_tiles(out: [usize; 2]) -> [usize; 2] {
    out.map(|n| n.div_ceil(OUT))
}

/// Whether a correlation uses these transforms; its shape alone decides.
pub fn is_suitable(cx: &Context, geometry: &ConvGeometry) -> bool {
    let flat = geometry.size[0] == 1 && geometry.out[0] == 1 && geometry.first[0] == 0;
    let taps = geometry.taps == [1, TAPS, TAPS]
        && geometry.stride[1..] == [1, 1]
        && geometry.step[1..].iter().all(|step| step.abs() == 1);
    if cx.profile.kind != Kind::Cpu || !flat || !taps {
        return false;
    }
    let tiles: usize = count_tiles([geometry.out[1], geometry.out[2]]).iter().product();
    // Tiles that extend past the end save little: at least a third of the products must be saved.
    let saves = 2 * TAPS * TAPS * geometry.positions() >= 3 * ELEMENTS * tiles;
    geometry.rows.min(geometry.channels) >= MIN_CHANNELS && geometry.batch * tiles >= MIN_TILES && saves
}

/// Appends a correlation for which `is_suitable` holds.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn correlate(cx: &Rc<Context>, c: Correlation) -> Result<()> {
    let Correlation { geometry, x, w, bias, y } = c;
    let ConvGeometry { batch, groups, rows, channels, .. } = *geometry;
    let filters = groups * rows * channels;
    let u = cx.empty([ELEMENTS * filters], DType::F32)?;
    let reversed = |d: usize| geometry.step[d] < 0;
    let scalars = WeightScalars { groups, rows, channels, turn_h: reversed(1), turn_w: reversed(2) };
    cx.launch(Launch {
        kernel: &WEIGHT,
        params: [0; 4],
        bindings: [w.range(), u.range()].into_iter().collect(),
        scalars: scalars.words(),
        groups: (groups * rows) as u32,
        threads: 1,
        // G on both sides: 3 and 4 columns, of 4 additions each and two products.
        work: (filters * 7 * 6) as u64,
    });
    // Reversed taps start at the last one.
    let first = |d: usize| (geometry.first[d] - if reversed(d) { TAPS as isize - 1 } else { 0 }) as i32;
    let (size, out) = ([geometry.size[1], geometry.size[2]], [geometry.out[1], geometry.out[2]]);
    let scalars = Scalars { batch, groups, rows, channels, size, out, first_h: first(1), first_w: first(2) };
    let tiles = batch * count_tiles(out).iter().product::<usize>();
    let mut bindings: smallvec::SmallVec<_> = [x.range(), u.range()].into_iter().collect();
    bindings.extend(bias.map(Value::range));
    bindings.push(y.range());
    cx.launch(Launch {
        kernel: if bias.is_some() { &CONV_BIAS } else { &CONV },
        params: [0; 4],
        bindings,
        scalars: scalars.words(),
        groups: tiles as u32,
        threads: 1,
        work: (2 * ELEMENTS * filters * tiles) as u64,
    });
    Ok(())
}
