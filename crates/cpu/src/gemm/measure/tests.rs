use std::time::Duration;

use super::{BUDGET, Bench, MIN_ROUNDS, Processor, ROUNDS, candidates, fastest};
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
    fn of(took: &[u64]) -> FakeBench {
        let took = took.iter().map(|us| Duration::from_micros(*us)).collect();
        FakeBench { took, wrong: Vec::new(), delayed: Vec::new(), timed: Vec::new() }
    }

    fn fastest(&mut self) -> usize {
        fastest(self, self.took.len())
    }
}

impl Bench for FakeBench {
    fn is_correct(&mut self, variant: usize) -> bool {
        !self.wrong.contains(&variant)
    }

    fn time(&mut self, variant: usize) -> Duration {
        let late = self.delayed.iter().find(|(number, _)| *number == self.timed.len());
        self.timed.push(variant);
        self.took[variant].mul_f64(late.map_or(1.0, |(_, times)| *times))
    }
}

#[test]
fn the_simpler_form_stays_unless_another_is_faster_by_the_margin() {
    assert_eq!(FakeBench::of(&[1000, 700]).fastest(), 1);
    assert_eq!(FakeBench::of(&[1000, 801]).fastest(), 0);
    assert_eq!(FakeBench::of(&[1000, 800]).fastest(), 1);
    // The margin is relative to the best variant so far, not to the first.
    assert_eq!(FakeBench::of(&[1000, 500, 410]).fastest(), 1);
    assert_eq!(FakeBench::of(&[1000, 500, 100]).fastest(), 2);
    // Pairs that are not faster, and tiles that are.
    assert_eq!(FakeBench::of(&[1000, 990, 100]).fastest(), 2);
    assert_eq!(FakeBench::of(&[1000, 2000, 900]).fastest(), 0);
}

#[test]
fn a_wrong_form_is_not_taken_and_not_timed() {
    let mut bench = FakeBench { wrong: vec![2], ..FakeBench::of(&[1000, 500, 10]) };
    assert_eq!(bench.fastest(), 1);
    assert!(!bench.timed.contains(&2));
    let mut bench = FakeBench { wrong: vec![1, 2], ..FakeBench::of(&[1000, 500, 10]) };
    assert_eq!(bench.fastest(), 0);
    assert!(bench.timed.is_empty());
}

#[test]
fn what_holds_some_timings_up_changes_nothing() {
    let delayed = vec![(0, 30.0), (3, 4.0), (4, 2.0)];
    assert_eq!(FakeBench { delayed: delayed.clone(), ..FakeBench::of(&[400, 380]) }.fastest(), 0);
    assert_eq!(FakeBench { delayed, ..FakeBench::of(&[400, 200]) }.fastest(), 1);
}

#[test]
fn a_slow_processor_is_asked_less() {
    let mut quick = FakeBench::of(&[400, 200, 100]);
    quick.fastest();
    assert_eq!(quick.timed.len(), 3 * ROUNDS);
    let mut slow = FakeBench::of(&[8000, 6000, 5000]);
    slow.fastest();
    assert_eq!(slow.timed.len(), 3 * MIN_ROUNDS);
    assert!(slow.took.iter().sum::<Duration>() > BUDGET);
}

#[test]
fn forms_differ_in_products_of_bf16_alone() {
    for level in Level::ALL {
        let all = candidates(*level);
        assert_eq!((all[0], all[all.len() - 1]), (level.exact(), *level));
    }
    #[cfg(target_arch = "x86_64")]
    assert_eq!(candidates(Level::Amx), [Level::Avx512, Level::Avx512Bf16, Level::Amx]);
}

#[test]
fn every_form_of_this_processor_is_right_and_a_wrong_one_is_seen() {
    let levels: Vec<Level> = usable_levels().collect();
    let mut bench = Processor::new(&levels);
    for (variant, level) in levels.iter().enumerate() {
        assert!(bench.is_correct(variant), "{}", level.name());
        assert!(bench.time(variant) > Duration::ZERO);
    }
    // One sum lacks one term of typical size.
    bench.expected[77] += 0.5;
    assert!(!bench.is_correct(0));
}
