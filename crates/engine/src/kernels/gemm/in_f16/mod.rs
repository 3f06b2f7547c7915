//! Products whose factors are staged in f16: half of the workgroup memory of f32, and half of the shared reads of the
//! inner loop, which bound a tile.
//!
//! Maths: C = α·A·B + bias, or C += …, where each row of A and each column of B is scaled by a power of two, rounded to
//! f16, and C is scaled back. A product of two f16 has 22 bits and is exact in f32; sums are f32 in ascending order, by
//! fma. So each element of a factor loses at most 2⁻¹¹ of its value, once. Sums in f16, by packed arithmetic, would be
//! twice as fast, but lose 2⁻¹¹ of every partial sum and overflow early, so they are not used for training.
//!
//! Scales: a line is scaled by 2^s so that its largest magnitude is in [2¹⁴, 2¹⁵), one power below the range of f16,
//! since rounding may reach the next. Elements down to 2⁻²⁸ of the largest are normal numbers of f16 and keep 11 bits,
//! whatever the size of the line: gradients of 1e-9 as well as activations of 1e5. Smaller elements may lose bits or
//! become 0, depending on the device, which is less than f32's own rounding of a product with the largest element. s is
//! at most 126, so that 2^s and 2^−s are normal numbers; a line below 2⁻¹¹² is then scaled less, and loses nothing
//! above 2⁻¹⁴⁰. Infinities and NaN are ignored by the scale, and pass through f16 unchanged.
//!
//! Rounding: WGSL does not define the rounding of a conversion to f16, and rounding toward 0 would bias every product.
//! So elements are first rounded to 11 bits, to nearest even, and the conversion is exact.
//!
//! Cost: one pass over each factor finds the scales (scales.rs). A tile of C reads rows of A once for each column of
//! tiles, so the pass is the smaller part if there is more than one tile in each direction; only such products are
//! rounded (`plan::is_in_f16`). A low-rank path that is added to C is a separate launch, in f32.

mod scales;
#[cfg(test)]
pub(crate) mod tests;

use scales::STORED;
pub use scales::Scales;

use super::bindings::{A, B, BIAS, Binding, C, Scalars};
use super::plan::{AccessPatterns, Config};
use super::tile::Tile;
use crate::context::Context;
use crate::dtype::DType;
use crate::kernel::{Access, Implementations, Kernel, Params, Variant};
use crate::kernels::gemm::Precision;

const A_SCALE: Binding = ("a_scale", Access::Read);
const B_SCALE: Binding = ("b_scale", Access::Read);

pub static PRODUCT: Kernel = define_kernel(
    "gemm_f16",
    &[A, B, A_SCALE, B_SCALE, C],
    |params| emit_body(params, false),
    || list_variants(5),
);
pub static PRODUCT_BIAS: Kernel = define_kernel(
    "gemm_f16_bias",
    &[A, B, A_SCALE, B_SCALE, BIAS, C],
    |params| emit_body(params, true),
    || list_variants(6),
);

const fn define_kernel(
    name: &'static str,
    bindings: &'static [Binding],
    wgsl: fn(Params) -> String,
    variants: fn() -> Vec<Variant>,
) -> Kernel {
    Kernel {
        name,
        bindings,
        scalars: Scalars::members,
        implementations: Implementations::Gpu(wgsl),
        variants,
    }
}

pub const KERNELS: [&Kernel; 3] = [&PRODUCT, &PRODUCT_BIAS, &scales::SCALES];

/// Every variant.
pub fn list_configs() -> impl Iterator<Item = Config> {
    Tile::IN_F16
        .iter()
        .flat_map(|tile| AccessPatterns::list_for_weights().map(|reads| Config::Tile(*tile, reads)))
}

fn list_variants(bindings: usize) -> Vec<Variant> {
    let make_variants = |b: DType| {
        let mut dtypes = vec![DType::F32; bindings];
        dtypes[1] = b;
        list_configs().map(move |config| Variant {
            params: config.params(),
            dtypes: dtypes.clone(),
            threads: config.threads(),
        })
    };
    STORED.into_iter().flat_map(make_variants).collect()
}

fn emit_body(params: Params, bias: bool) -> String {
    const UNSCALED: &str = "unscaled(z, row, column, sum)";
    ROUNDED.to_string() + &super::shader::emit_f16_body(params, bias, UNSCALED)
}

/// WGSL. The larger of the two inverse scales is multiplied last: a sum is large, and the product of both scales may be
/// outside the range of f32 where the result is not.
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

/// The precision of products on this device for the requested precision.
pub fn resolve_precision(cx: &Context, requested: Precision) -> Precision {
    match requested {
        Precision::F16 if !cx.profile.f16_arithmetic => Precision::Exact,
        requested => requested,
    }
}
