//! exp, log and functions derived from them, branch-free, so that loops over them vectorise.

use super::Fma;

/// eˣ as (e, n), eˣ = e · 2ⁿ with e about 1, within 2 ulp, for x whose eˣ an f32 holds; NaN for NaN.
///
/// Source: Cephes' `expf`: x = n ln 2 + r with |r| ≤ ln 2 / 2, and a polynomial of degree 6 in r.
#[inline(always)]
fn split_exp<S: Fma>(x: f32) -> (f32, i32) {
    // Adding 1.5 · 2²³ rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let rounded = S::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    // ln 2 in two parts; n times the first part is exact.
    let r = S::fma(n, -0.693_359_4, x);
    let r = S::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = S::fma(p, r, 1.398_199_9e-3);
    p = S::fma(p, r, 8.333_452e-3);
    p = S::fma(p, r, 4.166_579_6e-2);
    p = S::fma(p, r, 1.666_666_5e-1);
    p = S::fma(p, r, 5.000_000_1e-1);
    let e = S::fma(r * r, p, r) + 1.0;
    (e, (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
}

/// 2ⁿ, a normal number.
#[inline(always)]
fn exp2_int(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// eˣ within 2 ulp; +∞ above 88.73, subnormal below −87.34, 0 below −103.98, NaN for NaN.
#[inline(always)]
pub fn exp<S: Fma>(x: f32) -> f32 {
    let x = if x < -105.0 { -105.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let (e, n) = split_exp::<S>(x);
    // Two factors, since 2ⁿ leaves the range of normal numbers before the result does.
    let half = n >> 1;
    e * exp2_int(half) * exp2_int(n.wrapping_sub(half))
}

/// As `exp` for x ≤ 88, but 0 below −87.33, for softmax, where keys are hidden: subnormal results are slow on Intel
/// (about 150 cycles per vector). Causal attention over 64 tokens took twice as long with `exp`, its backward 1.5
/// times.
#[inline(always)]
pub fn exp_or_zero<S: Fma>(x: f32) -> f32 {
    const LEAST: f32 = -87.33;
    let near = if x < LEAST { LEAST } else { x };
    let (e, n) = split_exp::<S>(if near > 88.0 { 88.0 } else { near });
    if x < LEAST { 0.0 } else { e * exp2_int(n) }
}

/// x > 0 as (n, m): 2ⁿ · m with √½ ≤ m < √2.
#[inline(always)]
fn split_mantissa(x: f32) -> (f32, f32) {
    const ROOT: i32 = 0x3f35_04f3;
    // 2²³ makes subnormal numbers normal.
    let small = x < f32::MIN_POSITIVE;
    let (x, shift) = if small { (x * 8_388_608.0, -23.0) } else { (x, 0.0) };
    let bits = x.to_bits() as i32;
    let n = bits.wrapping_sub(ROOT) >> 23;
    (n as f32 + shift, f32::from_bits(bits.wrapping_sub(n << 23) as u32))
}

/// ln x within 1 ulp; −∞ at ±0, NaN below, +∞ for +∞, NaN for NaN.
///
/// Source: Cephes' `logf`: with x = 2ⁿ m and f = m − 1, a polynomial of degree 8 for (ln m − f + f²/2) / f³, and n ln 2
/// in two parts; n times the first part is exact.
#[inline(always)]
pub fn log<S: Fma>(x: f32) -> f32 {
    let (n, m) = split_mantissa(x);
    let f = m - 1.0;
    let q = f * f;
    let mut p = 7.037_683_6e-2;
    p = S::fma(p, f, -1.151_461e-1);
    p = S::fma(p, f, 1.167_699_9e-1);
    p = S::fma(p, f, -1.242_014_1e-1);
    p = S::fma(p, f, 1.424_932_3e-1);
    p = S::fma(p, f, -1.666_805_8e-1);
    p = S::fma(p, f, 2.000_071_5e-1);
    p = S::fma(p, f, -2.499_999_4e-1);
    p = S::fma(p, f, 3.333_333_1e-1);
    let rest = S::fma(n, -2.121_944_4e-4, p * f * q);
    let y = S::fma(n, 0.693_359_4, S::fma(q, -0.5, rest) + f);
    let y = if x > f32::MAX { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// ln(1 + x) within 3 ulp; −∞ at −1, NaN below. Near 0, where 1 + x loses digits of x, by the series of
/// 2 artanh(x / (2 + x)).
#[inline(always)]
pub fn log1p<S: Fma>(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let z = s * s;
    let mut t = 1.0 / 11.0;
    t = S::fma(t, z, 1.0 / 9.0);
    t = S::fma(t, z, 1.0 / 7.0);
    t = S::fma(t, z, 1.0 / 5.0);
    t = S::fma(t, z, 1.0 / 3.0);
    let near = 2.0 * S::fma(s * z, t, s);
    let far = log::<S>(1.0 + x);
    if (x > -0.3) & (x < 0.42) { near } else { far }
}

/// eˣ − 1 within 4 ulp. Near 0, where the difference cancels, by the Taylor series.
#[inline(always)]
pub fn expm1<S: Fma>(x: f32) -> f32 {
    let mut t = 1.0 / 362_880.0;
    t = S::fma(t, x, 1.0 / 40_320.0);
    t = S::fma(t, x, 1.0 / 5_040.0);
    t = S::fma(t, x, 1.0 / 720.0);
    t = S::fma(t, x, 1.0 / 120.0);
    t = S::fma(t, x, 1.0 / 24.0);
    t = S::fma(t, x, 1.0 / 6.0);
    t = S::fma(t, x, 0.5);
    let near = S::fma(x * x, t, x);
    let far = exp::<S>(x) - 1.0;
    if x.abs() < 0.5 { near } else { far }
}

/// 1 / (1 + e⁻ˣ), from e^−|x|, which never overflows.
#[inline(always)]
pub fn sigmoid<S: Fma>(x: f32) -> f32 {
    let e = exp::<S>(-x.abs());
    let n = if x < 0.0 { e } else { 1.0 };
    n / (1.0 + e)
}

/// x · sigmoid(x).
#[inline(always)]
pub fn silu<S: Fma>(x: f32) -> f32 {
    x * sigmoid::<S>(x)
}

/// d · silu'(x).
#[inline(always)]
pub fn silu_backward<S: Fma>(d: f32, x: f32) -> f32 {
    let s = sigmoid::<S>(x);
    d * s * S::fma(x, 1.0 - s, 1.0)
}

/// tanh within 2 ulp. Source: Cephes' `tanhf`, an odd polynomial near 0 and 1 − 2 / (e²ˣ + 1) elsewhere.
#[inline(always)]
pub fn tanh<S: Fma>(x: f32) -> f32 {
    let a = x.abs();
    let q = x * x;
    let mut p = -5.704_988_7e-3;
    p = S::fma(p, q, 2.063_908_9e-2);
    p = S::fma(p, q, -5.373_971_5e-2);
    p = S::fma(p, q, 1.333_144_2e-1);
    p = S::fma(p, q, -3.333_328_2e-1);
    let near = S::fma(p * q, x, x);
    // Beyond 9.02 tanh rounds to 1; this avoids the infinities of e²ˣ.
    let far = (1.0 - 2.0 / (exp::<S>(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { near } else { far }
}

/// erf, within 4e-7: a rational function on [−4, 4], beyond which it rounds to 1 (Eigen's and XLA's form).
#[inline(always)]
pub fn erf<S: Fma>(x: f32) -> f32 {
    let a = if x > 4.0 { 4.0 } else { x };
    let a = if a < -4.0 { -4.0 } else { a };
    let q = a * a;
    let mut n = -2.726_142_3e-10;
    n = S::fma(n, q, 2.770_681_4e-8);
    n = S::fma(n, q, -2.101_024e-6);
    n = S::fma(n, q, -5.692_506_4e-5);
    n = S::fma(n, q, -7.349_906_3e-4);
    n = S::fma(n, q, -2.954_599_8e-3);
    n = S::fma(n, q, -1.609_603_3e-2);
    let mut d = -1.456_607_2e-5;
    d = S::fma(d, q, -2.133_740_6e-4);
    d = S::fma(d, q, -1.682_827e-3);
    d = S::fma(d, q, -7.373_329e-3);
    d = S::fma(d, q, -1.426_473_9e-2);
    if x.abs() < 4.0 || x.is_nan() { a * n / d } else { 1f32.copysign(x) }
}
