//! Correlations with 3 × 3 taps at stride 1 on the processor, by 2.25 times fewer products: Winograd's F(2×2, 3×3).
//!
//! Maths: y is cut into tiles of 2 × 2, each of which meets 4 × 4 elements d of every channel of x. With
//!
//! ```text
//! Bᵀ = [1  0 −1  0]    G = [ 1   0   0]    Aᵀ = [1 1  1  0]
//!      [0  1  1  0]        [ ½   ½   ½]         [0 1 −1 −1]
//!      [0 −1  1  0]        [ ½  −½   ½]
//!      [0  1  0 −1]        [ 0   0   1]
//! ```
//!
//! V = Bᵀ·d·B and U = G·w·Gᵀ, a tile of y is Aᵀ·(Σ_c U ⊙ V)·A: for each of the 16 places ξ of U and V a
//! product of matrices, [rows, channels] by [channels, tiles], 16 multiply-adds a channel where the sum over taps
//! has 36. Source: Lavin and Gray 2016, arXiv 1509.09308, section 4.1.
//!
//! Layout: U stands in scratch of 16/9 the weight's elements (in f32), as the products read it, see `Factor`. A
//! task has some panels of tiles, which may be of several images, and makes their V in a workspace that L2
//! holds, a part of the channels at a time; then, for each few rows, the 16 products by `gemm`'s tiles and
//! their transform to y (native.rs).
//!
//! Rounding: U takes 4 roundings and is at most 9/4 of the largest |w|, V takes 2 and is at most 4 of the largest |x|,
//! and the last transform takes 4. Over what an output is made of, Σ|U|·|V| ≤ 64·C·max|w|·max|x|, in sums of C terms;
//! over taps it is 9·C·max|w|·max|x|, in one of 9·C. So to first order an error is at most
//! 64·C·(C + 12)·2⁻²⁴·max|w|·max|x|, of the sum over taps 81·C²·2⁻²⁴·max|w|·max|x|. On 256 channels of random numbers
//! it is 0.58 of that of the sum over taps (a test holds it below 1). An infinity or NaN in x reaches all four outputs
//! of each tile that meets it, not those alone that do themselves, and of x beyond a quarter of the largest f32
//! transforms overflow.
//!
//! Milliseconds on two cores of a Zen 4 EPYC, f32, in turns, the better of two medians; backward makes the gradients of
//! input, weight (by taps in any case) and bias, and each ends with a sum that is read back:
//!
//! | x, kernel               | forward, taps | here | oneDNN | backward, taps | here | oneDNN |
//! |-------------------------|---------------|------|--------|----------------|------|--------|
//! | 8 × 256 × 32², 256      | 47.4          | 23.7 | 45.8   | 102            | 76.8 | 102    |
//! | 8 × 64 × 56², 64        | 11.4          | 6.8  | 9.7    | 22.6           | 16.6 | 21.5   |
//! | 8 × 256 × 14², 256      | 10.4          | 6.1  | 8.5    | 20.9           | 16.7 | 18.5   |
//!
//! Forward alone, taps over here: 2.1 of 2 × 320 × 64², 320; 1.6 of 2 × 640 × 32², 640; 1.3 of 2 × 1280 × 16², 1280,
//! whose U no cache holds; 1.9 of 8 × 32 × 64², 32.

mod native;
#[cfg(test)]
mod tests;
mod tiles;
mod weight;

use std::rc::Rc;

use super::{Correlation, Walk};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Kernel, Launch, Twin};
use crate::profile::Kind;
use crate::scalars;

/// Outputs of a tile along a dimension, taps, elements that they meet, and places of a transform.
const OUT: usize = 2;
const TAPS: usize = 3;
const IN: usize = OUT + TAPS - 1;
const PLACES: usize = IN * IN;

/// Channels and rows from which there is enough to do with a transform.
const LEAST: usize = 32;
/// Tiles from which the weight's transform pays.
const LEAST_TILES: usize = 64;

scalars! {
    /// `turn_*`: the taps go backwards along that dimension.
    struct WeightScalars { groups: usize, rows: usize, channels: usize, turn_h: bool, turn_w: bool }
}

scalars! {
    /// `rows` and `channels` are those of a group; output 0 meets its first tap at `first_*`.
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
    twin: Twin::Native(native::weight),
    variants: Vec::new,
};

static CONV: Kernel = Kernel {
    name: "winograd",
    bindings: &[("x", Access::Read), ("u", Access::Read), ("y", Access::ReadWrite)],
    scalars: Scalars::members,
    twin: Twin::Native(native::forward::<false>),
    variants: Vec::new,
};

static CONV_BIAS: Kernel = Kernel {
    name: "winograd_bias",
    bindings: &[("x", Access::Read), ("u", Access::Read), ("bias", Access::Read), ("y", Access::ReadWrite)],
    scalars: Scalars::members,
    twin: Twin::Native(native::forward::<true>),
    variants: Vec::new,
};

pub const KERNELS: [&Kernel; 3] = [&WEIGHT, &CONV, &CONV_BIAS];

/// Tiles of an image along both dimensions.
fn tiles_of(out: [usize; 2]) -> [usize; 2] {
    out.map(|n| n.div_ceil(OUT))
}

/// Whether a correlation is made so; its shape alone decides.
pub fn suits(cx: &Context, walk: &Walk) -> bool {
    let flat = walk.size[0] == 1 && walk.out[0] == 1 && walk.first[0] == 0;
    let taps = walk.taps == [1, TAPS, TAPS]
        && walk.stride[1..] == [1, 1]
        && walk.step[1..].iter().all(|step| step.abs() == 1);
    if cx.profile.kind != Kind::Cpu || !flat || !taps {
        return false;
    }
    let tiles: usize = tiles_of([walk.out[1], walk.out[2]]).iter().product();
    // Tiles that reach over the end save little: a third of the products has to go.
    let saves = 2 * TAPS * TAPS * walk.positions() >= 3 * PLACES * tiles;
    walk.rows.min(walk.channels) >= LEAST && walk.batch * tiles >= LEAST_TILES && saves
}

/// Appends a correlation whose walk suits.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn correlate(cx: &Rc<Context>, c: Correlation) -> Result<()> {
    let Correlation { walk, x, w, bias, y } = c;
    let Walk { batch, groups, rows, channels, .. } = *walk;
    let filters = groups * rows * channels;
    let u = cx.empty([PLACES * filters], DType::F32)?;
    let turned = |d: usize| walk.step[d] < 0;
    let scalars = WeightScalars { groups, rows, channels, turn_h: turned(1), turn_w: turned(2) };
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
    // The taps turned round start where the last one was.
    let first = |d: usize| (walk.first[d] - if turned(d) { TAPS as isize - 1 } else { 0 }) as i32;
    let (size, out) = ([walk.size[1], walk.size[2]], [walk.out[1], walk.out[2]]);
    let scalars = Scalars { batch, groups, rows, channels, size, out, first_h: first(1), first_w: first(2) };
    let tiles = batch * tiles_of(out).iter().product::<usize>();
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
        work: (2 * PLACES * filters * tiles) as u64,
    });
    Ok(())
}
