use std::time::Duration;

use super::{BUDGET, Bench, MIN_ROUNDS, Processor, ROUNDS, choose_fastest, list_candidates};
use crate::simd::Level;
use crate::simd::level::usable_levels;

/// A bench with given durations.
struct FakeBench {
    took: Vec<Duration>,
    wrong: Vec<usize>,
    /// Timings that are delayed: their number and the factor.
    delayed: Vec<(usize, f64)>,
    timed: Vec<usize>,
}

impl FakeBench {
    /// Creates variants with these durations, in microseconds.
    fn with_durations(took: &[u64]) -> FakeBench {
        let took = took.iter().map(|us| Duration::from_micros(*us)).collect();
        FakeBench { took, wrong: Vec::new(), delayed: Vec::new(), timed: Vec::new() }
    }

    fn run(&mut self) -> usize {
        choose_fastest(self, self.took.len())
    }
}

impl Bench for FakeBench {
    fn is_correct(&mut self, variant: usize) -> bool {
        !self.wrong.contains(&variant)
    }

    fn measure(&mut self, variant: usize) -> Duration {
        let late = self.delayed.iter().find(|(number, _)| *number == self.timed.len());
        self.timed.push(variant);
        self.took[variant].mul_f64(late.map_or(1.0, |(_, times)| *times))
    }
}

#[test]
fn the_simpler_variant_wins_unless_another_exceeds_the_margin() {
    assert_eq!(FakeBench::with_durations(&[1000, 700]).run(), 1);
    assert_eq!(FakeBench::with_durations(&[1000, 801]).run(), 0);
    assert_eq!(FakeBench::with_durations(&[1000, 800]).run(), 1);
    // The margin is relative to the best variant so far, not to the first.
    assert_eq!(FakeBench::with_durations(&[1000, 500, 410]).run(), 1);
    assert_eq!(FakeBench::with_durations(&[1000, 500, 100]).run(), 2);
    // Pairs that are not faster, and tiles that are.
    assert_eq!(FakeBench::with_durations(&[1000, 990, 100]).run(), 2);
    assert_eq!(FakeBench::with_durations(&[1000, 2000, 900]).run(), 0);
}

#[test]
fn a_wrong_variant_is_neither_timed_nor_chosen() {
    let mut bench = FakeBench { wrong: vec![2], ..FakeBench::with_durations(&[1000, 500, 10]) };
    assert_eq!(bench.run(), 1);
    assert!(!bench.timed.contains(&2));
    let mut bench = FakeBench { wrong: vec![1, 2], ..FakeBench::with_durations(&[1000, 500, 10]) };
    assert_eq!(bench.run(), 0);
    assert!(bench.timed.is_empty());
}

#[test]
fn delayed_timings_do_not_change_the_choice() {
    let delayed = vec![(0, 30.0), (3, 4.0), (4, 2.0)];
    assert_eq!(FakeBench { delayed: delayed.clone(), ..FakeBench::with_durations(&[400, 380]) }.run(), 0);
    assert_eq!(FakeBench { delayed, ..FakeBench::with_durations(&[400, 200]) }.run(), 1);
}

#[test]
fn a_slow_processor_runs_fewer_rounds() {
    let mut quick = FakeBench::with_durations(&[400, 200, 100]);
    quick.run();
    assert_eq!(quick.timed.len(), 3 * ROUNDS);
    let mut slow = FakeBench::with_durations(&[8000, 6000, 5000]);
    slow.run();
    assert_eq!(slow.timed.len(), 3 * MIN_ROUNDS);
    assert!(slow.took.iter().sum::<Duration>() > BUDGET);
}

#[test]
fn candidates_range_from_the_exact_level_to_the_given_level() {
    for level in Level::ALL {
        let all = list_candidates(*level);
        assert_eq!((all[0], all[all.len() - 1]), (level.exact(), *level));
    }
    #[cfg(target_arch = "x86_64")]
    assert_eq!(list_candidates(Level::Amx), [Level::Avx512, Level::Avx512Bf16, Level::Amx]);
}

#[test]
fn every_variant_is_correct_and_an_error_is_detected() {
    let levels: Vec<Level> = usable_levels().collect();
    let mut bench = Processor::new(&levels);
    for (variant, level) in levels.iter().enumerate() {
        assert!(bench.is_correct(variant), "{}", level.name());
        assert!(bench.measure(variant) > Duration::ZERO);
    }
    // One sum lacks one term of typical size.
    bench.expected[77] += 0.5;
    assert!(!bench.is_correct(0));
}
