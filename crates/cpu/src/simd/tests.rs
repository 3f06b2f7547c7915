use super::*;

/// Fused arithmetic, as in every set but the baseline.
#[derive(Clone, Copy)]
struct Fused;

impl Fma for Fused {
    const FUSED: bool = true;

    /// A library call here; mingw's rounds twice.
    #[cfg(all(windows, target_env = "gnu"))]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        libm::fmaf(a, b, c)
    }
}

/// The distance in units of the last place of the f64 result rounded to f32.
fn count_ulps(got: f32, expected: f64) -> f64 {
    let rounded = expected as f32;
    if got == rounded || (got.is_nan() && rounded.is_nan()) {
        return 0.0;
    }
    let exponent = (rounded.to_bits() >> 23 & 0xff).max(1) as i32;
    (got as f64 - expected).abs() / 2f64.powi(exponent - 150)
}

fn find_worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, xs: impl Iterator<Item = f32>) -> (f64, f32) {
    xs.fold((0.0, 0.0), |worst, x| {
        let off = count_ulps(f(x), exact(x as f64));
        if off > worst.0 || off.is_nan() { (off, x) } else { worst }
    })
}

/// Every 997th f32 of both signs, and all at the ends of exp's range.
fn sample_f32() -> impl Iterator<Item = f32> {
    let wide = (0..0x7f80_0000u32).step_by(997).flat_map(|b| [f32::from_bits(b), -f32::from_bits(b)]);
    let ends = [88.0f32, -87.0, -103.0].into_iter();
    wide.chain(ends.flat_map(|x| (0..300_000u32).map(move |i| f32::from_bits(x.to_bits() + i))))
}

#[test]
fn exp_is_within_two_ulp_everywhere() {
    for f in [exp::<Fused> as fn(f32) -> f32, exp::<Baseline>] {
        let (off, at) = find_worst(f, f64::exp, sample_f32());
        assert!(off <= 2.0, "exp({at}): {off} ulp");
        assert!(f(f32::NAN).is_nan());
        assert_eq!(f(f32::INFINITY), f32::INFINITY);
        assert_eq!(f(f32::NEG_INFINITY), 0.0);
        assert_eq!(f(0.0), 1.0);
    }
}

#[test]
fn exp_or_zero_equals_exp_except_for_subnormal_results() {
    for (f, reference) in [
        (exp_or_zero::<Fused> as fn(f32) -> f32, exp::<Fused> as fn(f32) -> f32),
        (exp_or_zero::<Baseline>, exp::<Baseline>),
    ] {
        for x in sample_f32().filter(|x| *x <= 88.0) {
            let expected = if x < -87.33 { 0.0 } else { reference(x) };
            assert_eq!(f(x).to_bits(), expected.to_bits(), "{x}");
            assert!(f(x) == 0.0 || f(x).is_normal(), "{x}");
        }
        assert!(f(f32::NAN).is_nan());
        assert_eq!([f(f32::NEG_INFINITY), f(-0.0)], [0.0, 1.0]);
    }
}

#[test]
fn log_is_within_one_ulp_everywhere() {
    for f in [log::<Fused> as fn(f32) -> f32, log::<Baseline>] {
        // Near 1 the logarithm loses most digits to cancellation.
        let around_one = (0x3f40_0000..0x3fc0_0000u32).map(f32::from_bits);
        let (off, at) = find_worst(f, f64::ln, sample_f32().chain(around_one));
        assert!(off <= 1.0, "log({at}): {off} ulp");
        assert!(f(f32::NAN).is_nan());
        assert!(f(-1.0).is_nan() && f(f32::NEG_INFINITY).is_nan());
        assert_eq!([f(0.0), f(-0.0)], [f32::NEG_INFINITY; 2]);
        assert_eq!(f(f32::INFINITY), f32::INFINITY);
        assert_eq!(f(1.0), 0.0);
    }
}

#[test]
fn functions_of_exp_keep_its_accuracy() {
    // A division and an addition after exp's two: 4 ulp; sigmoid(−x) = e⁻ˣ / (1 + e⁻ˣ) keeps its relative accuracy in
    // the tail.
    let (off, at) = find_worst(sigmoid::<Fused>, |x| 1.0 / (1.0 + (-x).exp()), sample_f32());
    assert!(off <= 4.0, "sigmoid({at}): {off} ulp");
    let (off, at) = find_worst(tanh::<Fused>, f64::tanh, sample_f32());
    assert!(off <= 2.0, "tanh({at}): {off} ulp");
    for f in [sigmoid::<Fused> as fn(f32) -> f32, tanh::<Fused>, erf::<Fused>] {
        assert!(f(f32::NAN).is_nan());
        assert_eq!(f(f32::INFINITY), 1.0);
    }
    assert_eq!(sigmoid::<Fused>(f32::NEG_INFINITY), 0.0);
    assert_eq!(tanh::<Fused>(f32::NEG_INFINITY), -1.0);
    assert_eq!(erf::<Fused>(f32::NEG_INFINITY), -1.0);
}

#[test]
fn sin_and_cos_are_within_two_ulp_everywhere() {
    fn evaluate(near: fn(f32) -> f32, far: fn(f32) -> f32, x: f32) -> f32 {
        if x.abs() <= NEAR { near(x) } else { far(x) }
    }
    let sin = [
        |x| evaluate(sin_near::<Fused>, sin_far::<Fused>, x),
        |x| evaluate(sin_near::<Baseline>, sin_far::<Baseline>, x),
    ];
    let cos = [
        |x| evaluate(cos_near::<Fused>, cos_far::<Fused>, x),
        |x| evaluate(cos_near::<Baseline>, cos_far::<Baseline>, x),
    ];
    // Where sine or cosine is near 0, most digits cancel: the numbers on both sides of multiples of π/2.
    let turns = (1..2_000_000u32).step_by(7).flat_map(|n| {
        let x = (n as f64 * std::f64::consts::FRAC_PI_2) as f32;
        [x, f32::from_bits(x.to_bits() + 1), f32::from_bits(x.to_bits() - 1)]
    });
    for (f, exact) in
        sin.into_iter().map(|f| (f, libm::sin as fn(f64) -> f64)).chain(cos.map(|f| (f, libm::cos as _)))
    {
        let (off, at) = find_worst(f, exact, sample_f32().chain(turns.clone()));
        assert!(off <= 2.0, "at {at}: {off} ulp");
        assert!(f(f32::NAN).is_nan() && f(f32::INFINITY).is_nan() && f(f32::NEG_INFINITY).is_nan());
    }
    assert_eq!(sin[0](-0.0).to_bits(), (-0f32).to_bits());
}

#[test]
fn reductions_cover_every_element_of_a_row() {
    vectorised! {
        fn reduce_all(a: &[f32], b: &[f32]) -> [f32; 3] { [sum::<S>(a), dot::<S>(a, b), max::<S>(a)] }
    }
    for n in [0usize, 1, 31, 32, 33, 64, 257] {
        let a: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..n).map(|i| (i % 5) as f32).collect();
        // Integers, so that every order gives the same sum.
        let dots: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(reduce_all(&a, &b), [a.iter().sum(), dots, largest]);
    }
}

#[test]
fn log_sum_is_accurate_and_propagates_non_finite_values() {
    vectorised! {
        fn log_sum_exp(x: &[f32]) -> f32 {
            let (m, s) = log_sum::<S>(x);
            m + s.ln()
        }
    }
    let inf = f32::INFINITY;
    for n in [1usize, 257, 4096, 4097, 10_000] {
        let mut x: Vec<f32> = (0..n).map(|i| (i % 97) as f32 / 9.0 + (i / 3000) as f32).collect();
        let exact = |x: &[f32]| x.iter().map(|v| (*v as f64).exp()).sum::<f64>().ln();
        // A lane adds 128 terms of a block: the sum is right within 128 roundings, 8e-6, at worst.
        assert!((log_sum_exp(&x) as f64 - exact(&x)).abs() <= 8e-6, "{n}");
        x[0] = f32::NAN;
        assert!(log_sum_exp(&x).is_nan());
        x[0] = inf;
        assert!(log_sum_exp(&x).is_nan());
        x.fill(-inf);
        assert!(log_sum_exp(&x).is_nan());
        x[n - 1] = 2.0;
        assert_eq!(log_sum_exp(&x), 2.0);
        x[0] = f32::NAN;
        assert!(log_sum_exp(&x).is_nan());
    }
}
