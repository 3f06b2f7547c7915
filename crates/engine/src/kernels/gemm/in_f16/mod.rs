//! Products whose factors are staged in f16: half of the workgroup memory that f32 takes, and half of what the inner
//! loop reads from it, which is what a tile waits for.
//!
//! Maths: C = α·A·B + bias, or C += …, with each row of A and each column of B rounded to f16 after it was scaled by
//! a power of two of its own, and C scaled back. A product of two f16 has 22 bits and is exact in f32; sums are f32
//! in ascending order, by fma. So of each factor 2⁻¹¹ of an element is lost at most, once, and nothing else that f32
//! would keep. Sums in f16, which packed arithmetic would make twice as fast, lose 2⁻¹¹ of every partial sum, and
//! have no room for large ones: not for training.
//!
//! Scales: a line is scaled by 2^s, so that its largest magnitude lies in [2¹⁴, 2¹⁵), a power below what f16 ends
//! at, as rounding may reach the next. Elements down to 2⁻²⁸ of the largest are normal numbers of f16 and keep their
//! 11 bits, whatever the line's own size: gradients of 1e-9 as well as activations of 1e5. Less may lose bits or
//! become 0, by a device's own habits, and is less than f32's own rounding of a product with the largest. s is held
//! to 126, so that 2^s and 2^−s are normal numbers; a line below 2⁻¹¹² is then less well placed, and loses nothing
//! above 2⁻¹⁴⁰. Infinities and NaN take no part in a scale, and pass through f16 as themselves.
//!
//! Rounding: WGSL leaves open which way a conversion to f16 rounds, and one toward 0 would draw every product there.
//! So elements are rounded to 11 bits before, to the nearest, ties to even, and the conversion has nothing to round.
//!
//! Cost: scales are found in a pass over each factor (scales.rs), which reads it once more; a tile of C reads rows of
//! A once for each column of tiles, so the pass is the smaller part where there are more tiles than one each way, and
//! only then is a product made so (`plan::is_in_f16`). What a product adds to C besides, a path of low rank, is a
//! launch of its own, in f32.

mod scales;
#[cfg(test)]
pub(crate) mod tests;

pub use scales::Scales;

use super::plan::{Form, Reads};
use super::tile::Tile;
use super::{A, B, BIAS, Binding, C, Scalars};
use crate::context::Context;
use crate::dtype::DType;
use crate::kernel::{Access, Kernel, Params, Twin, Variant};
use crate::kernels::gemm::Precision;

const A_SCALE: Binding = ("a_scale", Access::Read);
const B_SCALE: Binding = ("b_scale", Access::Read);

pub static PRODUCT: Kernel =
    kernel("gemm_f16", &[A, B, A_SCALE, B_SCALE, C], |params| body(params, false), || variants(5));
pub static PRODUCT_BIAS: Kernel =
    kernel("gemm_f16_bias", &[A, B, A_SCALE, B_SCALE, BIAS, C], |params| body(params, true), || variants(6));

const fn kernel(
    name: &'static str,
    bindings: &'static [Binding],
    wgsl: fn(Params) -> String,
    variants: fn() -> Vec<Variant>,
) -> Kernel {
    Kernel { name, bindings, scalars: Scalars::members, twin: Twin::Gpu(wgsl), variants }
}

pub const KERNELS: [&Kernel; 3] = [&PRODUCT, &PRODUCT_BIAS, &scales::SCALES];

/// What B may be stored as.
const STORED: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Every form.
pub fn forms() -> impl Iterator<Item = Form> {
    Tile::IN_F16.iter().flat_map(|tile| Reads::of_weights().map(|reads| Form::Tile(*tile, reads)))
}

fn variants(bindings: usize) -> Vec<Variant> {
    let of = |b: DType| {
        let mut dtypes = vec![DType::F32; bindings];
        dtypes[1] = b;
        forms().map(move |form| Variant {
            params: form.params(),
            dtypes: dtypes.clone(),
            threads: form.threads(),
        })
    };
    STORED.into_iter().flat_map(of).collect()
}

fn body(params: Params, bias: bool) -> String {
    const UNSCALED: &str = "unscaled(z, row, column, sum)";
    ROUNDED.to_string() + &super::shader::in_f16(params, bias, UNSCALED)
}

/// The larger of two inverses comes last: a sum is large, and the two together may lie outside of f32 where what they
/// make of it does not.
const ROUNDED: &str = "fn rounded(v: vec4<f32>) -> vec4<f16> {
  let b = bitcast<vec4<u32>>(v);
  let r = (b + 0xfffu + ((b >> vec4<u32>(13u)) & vec4<u32>(1u))) & vec4<u32>(0xffffe000u);
  let number = (b & vec4<u32>(0x7fffffffu)) <= vec4<u32>(0x7f800000u);
  return vec4<f16>(bitcast<vec4<f32>>(select(b, r, number)));
}
fn inverse(scale: f32) -> f32 { return bitcast<f32>(0x7f000000u - bitcast<u32>(scale)); }
fn unscaled(z: u32, row: u32, column: u32, sum: f32) -> f32 {
  let a = inverse(load_a_scale(z * p.m + row));
  let b = inverse(load_b_scale(of_b(z) + column));
  return sum * min(a, b) * max(a, b);
}
fn of_b(z: u32) -> u32 { return select(z * p.n, 0u, p.b_batch == 0u); }
";

/// The precision that a device has for products of one.
pub fn precision(cx: &Context, asked: Precision) -> Precision {
    match asked {
        Precision::F16 if !cx.profile.f16_arithmetic => Precision::Exact,
        asked => asked,
    }
}
