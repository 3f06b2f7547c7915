//! sin and cos of every f32, by the nearest multiple of π/2.
//!
//! Maths: x = n π/2 + r with |r| ≤ π/4, then Cephes' polynomials (`sinf`, `cosf`) in r, chosen by n mod 4. Up to `NEAR`
//! the reduction is Cody and Waite's: π/2 in three parts of f64; n times the first two parts is exact. Beyond it is
//! Payne and Hanek's: x is m · 2ᵉ, and only 96 bits of 2/π influence m · 2ᵉ · 2/π modulo 4.
//! Error: no f32 is nearer to a multiple of π/2 than 2⁻³⁰, and r has a relative error of 2⁻⁵³ by the first reduction
//! and 2⁻³² by the second; so the error consists of rounding r to f32 (half an ulp), the polynomial (half) and the last
//! rounding (half).

use std::f64::consts::FRAC_2_PI;

use super::Fma;

/// Up to where n has at most 20 bits.
pub const NEAR: f32 = 1_000_000.0;

/// The bits of 2/π after the point, preceded by a word of integer bits. Repeated in trigonometric.wgsl.
const TWO_OVER_PI: [u32; 8] =
    [0, 0xa2f9_836e, 0x4e44_1529, 0xfc27_57d1, 0xf534_ddc0, 0xdb62_9599, 0x3c43_9041, 0xfe51_63ab];

/// n mod 4 in the low bits, and r, for |x| ≤ `NEAR`.
#[inline(always)]
fn reduce_near(x: f32) -> (u32, f32) {
    // Adding 1.5 · 2⁵² rounds to an integer, which is then in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let x = x as f64;
    let rounded = x * FRAC_2_PI + ROUND;
    let n = rounded - ROUND;
    let r = x - n * 1.570_796_326_734_125_6;
    let r = r - n * 6.077_100_506_303_966e-11;
    let r = r - n * 2.022_266_248_795_950_6e-21;
    (rounded.to_bits() as u32, r as f32)
}

/// n mod 4 in the low bits, and r, for finite |x| ≥ ½.
fn reduce_far(x: f32) -> (u32, f32) {
    let bits = x.to_bits();
    let m = (bits & 0x007f_ffff | 0x0080_0000) as u64;
    // The first bit of 2/π that matters: earlier ones contribute multiples of 4.
    let first = (bits >> 23 & 0xff) - 120;
    let (word, shift) = (first as usize / 32, first % 32);
    let window = |k: usize| {
        let pair =
            (TWO_OVER_PI[word + k] as u64) << 32 | TWO_OVER_PI.get(word + k + 1).copied().unwrap_or(0) as u64;
        (pair << shift) >> 32
    };
    // The 64 bits of the 24 × 96-bit product that end 62 bits after the point.
    let product = ((window(0) * m) << 32).wrapping_add(window(1) * m).wrapping_add((window(2) * m) >> 32);
    let n = (product.wrapping_add(1 << 61) >> 62) as u32;
    let rest = product.wrapping_sub((n as u64) << 62) as i64;
    let r = (rest as f64 * (std::f64::consts::FRAC_PI_2 / (1u64 << 62) as f64)) as f32;
    if x < 0.0 { (n.wrapping_neg(), -r) } else { (n, r) }
}

/// sin r where n is even, cos r where it is odd; the sign by the second bit.
#[inline(always)]
fn evaluate<S: Fma>(n: u32, r: f32) -> f32 {
    let q = r * r;
    let mut p = -1.951_529_6e-4;
    p = S::fma(p, q, 8.332_161e-3);
    p = S::fma(p, q, -1.666_665_5e-1);
    let sin = S::fma(p * q, r, r);
    let mut p = 2.443_315_7e-5;
    p = S::fma(p, q, -1.388_731_6e-3);
    p = S::fma(p, q, 4.166_664_6e-2);
    let cos = S::fma(p * q, q, S::fma(-0.5, q, 1.0));
    let y = if n & 1 == 0 { sin } else { cos };
    f32::from_bits(y.to_bits() ^ (n & 2) << 30)
}

/// sin x within 2 ulp, for |x| ≤ `NEAR`; without branches, so that loops over it vectorise.
#[inline(always)]
pub fn sin_near<S: Fma>(x: f32) -> f32 {
    let (n, r) = reduce_near(x);
    // −0 keeps its sign.
    if x == 0.0 { x } else { evaluate::<S>(n, r) }
}

/// cos x within 2 ulp, for |x| ≤ `NEAR`; without branches, so that loops over it vectorise.
#[inline(always)]
pub fn cos_near<S: Fma>(x: f32) -> f32 {
    let (n, r) = reduce_near(x);
    evaluate::<S>(n.wrapping_add(1), r)
}

/// sin x within 2 ulp, for |x| > `NEAR`; NaN for infinities and NaN.
pub fn sin_far<S: Fma>(x: f32) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    let (n, r) = reduce_far(x);
    evaluate::<S>(n, r)
}

/// cos x within 2 ulp, for |x| > `NEAR`; NaN for infinities and NaN.
pub fn cos_far<S: Fma>(x: f32) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    let (n, r) = reduce_far(x);
    evaluate::<S>(n.wrapping_add(1), r)
}
