use super::{Stream, philox};

/// The vectors that Random123 publishes for philox4x32-10.
#[test]
fn philox_equals_the_published_vectors() {
    let vectors = [
        ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
        (
            [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
            [0xa4093822, 0x299f31d0],
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
        ),
    ];
    for (counter, key, expected) in vectors {
        assert_eq!(philox(counter, key), expected);
    }
}

const COUNT: usize = 20_000;

/// The p-value of Kolmogorov and Smirnov's test, from the limit distribution of √n·D.
fn kolmogorov_smirnov(mut values: Vec<f32>, distribution: impl Fn(f64) -> f64) -> f64 {
    values.sort_by(f32::total_cmp);
    let n = values.len() as f64;
    let distance = values.iter().enumerate().fold(0f64, |m, (i, v)| {
        let f = distribution(*v as f64);
        m.max(f - i as f64 / n).max((i + 1) as f64 / n - f)
    });
    let t = distance * (n.sqrt() + 0.12 + 0.11 / n.sqrt());
    (1..100).map(|k| 2.0 * (-1f64).powi(k - 1) * (-2.0 * (k as f64 * t).powi(2)).exp()).sum()
}

/// The normal distribution function, by Simpson's rule from 0.
fn normal_cdf(x: f64) -> f64 {
    let steps = 200;
    let h = x / steps as f64;
    let density = |v: f64| (-0.5 * v * v).exp() / std::f64::consts::TAU.sqrt();
    let sum: f64 = (0..=steps)
        .map(|i| {
            let weight = if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
            weight * density(i as f64 * h)
        })
        .sum();
    0.5 + sum * h / 3.0
}

#[test]
fn uniform_numbers_are_uniform() {
    let values = Stream::new(1).uniform(COUNT, -2.0, 3.0);
    assert!(values.iter().all(|v| (-2.0..3.0).contains(v)));
    let p = kolmogorov_smirnov(values, |v| (v + 2.0) / 5.0);
    assert!(p > 0.01, "p = {p}");
}

#[test]
fn normal_numbers_are_normal() {
    let p = kolmogorov_smirnov(Stream::new(2).normal(COUNT, 1.0, 0.5), |v| normal_cdf((v - 1.0) / 0.5));
    assert!(p > 0.01, "p = {p}");
}

#[test]
fn the_ks_test_detects_a_shifted_distribution() {
    let shifted = Stream::new(3).normal(COUNT, 0.03, 1.0);
    assert!(kolmogorov_smirnov(shifted, normal_cdf) < 0.01);
}

#[test]
fn a_stream_resumes_from_its_state() {
    let mut stream = Stream::new(7);
    stream.normal(33, 0.0, 1.0);
    let mut resumed = Stream { seed: stream.seed, counter: stream.counter };
    assert_eq!(stream.uniform(65, 0.0, 1.0), resumed.uniform(65, 0.0, 1.0));
    assert_eq!(stream, resumed);
    assert_ne!(Stream::new(7).uniform(8, 0.0, 1.0), Stream::new(8).uniform(8, 0.0, 1.0));
}

#[test]
fn integers_are_uniform_and_within_their_bounds() {
    let values = Stream::new(3).integers(60_000, -2, 4);
    let mut counts = [0; 6];
    values.iter().for_each(|v| counts[(v + 2) as usize] += 1);
    // Six deviations of a count of 60,000 draws of one sixth.
    let bound = 6.0 * (60_000.0f64 * 5.0 / 36.0).sqrt();
    assert!(counts.iter().all(|c| (*c as f64 - 10_000.0).abs() < bound), "{counts:?}");
    let wide = Stream::new(4).integers(1000, i32::MIN, 1 << 31);
    assert!(wide.iter().any(|v| *v < -1 << 30) && wide.iter().any(|v| *v >= 1 << 30));
}

#[test]
fn all_permutations_are_equally_likely() {
    let mut counts = std::collections::HashMap::new();
    for draw in 0..6000u64 {
        let order = Stream { seed: 5, counter: draw << 32 }.permutation(3);
        *counts.entry(order).or_insert(0) += 1;
    }
    let bound = 6.0 * (6000.0f64 * 5.0 / 36.0).sqrt();
    assert!(counts.len() == 6 && counts.values().all(|c| (*c as f64 - 1000.0).abs() < bound), "{counts:?}");
    let mut long = Stream::new(6).permutation(5001);
    assert_ne!(long, Stream::new(7).permutation(5001));
    long.sort_unstable();
    assert!(long.into_iter().eq(0..5001));
}

#[test]
fn inverse_exponential_values_follow_their_distribution() {
    let values = Stream::new(8).inverse_exponential(COUNT);
    assert!(values.iter().all(|v| *v > 0.0 && v.is_finite()));
    let p = kolmogorov_smirnov(values.iter().map(|v| 1.0 / v).collect(), |e| 1.0 - (-e).exp());
    assert!(p > 0.01, "p = {p}");
}
