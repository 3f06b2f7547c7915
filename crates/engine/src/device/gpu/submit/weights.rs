//! Corrections of the kernels' work estimates, learnt from submissions that came close to the watchdog's limit.
//!
//! `budget` sizes a submission for about 20 ms by the rate of earlier ones, which works as long as the estimates of all
//! kernels are wrong by about the same factor. A kernel that takes a hundred times its estimate could still fill
//! seconds, and the system resets a GPU whose submission takes too long. So when a submission takes more than a sixth
//! of the limit, each of its kernels counts for more from then on. (A submission may take a third of the limit; a sixth
//! leaves half of that in reserve.) A kernel that only shared a submission with the slow one dominates other
//! submissions, which are short and reduce its correction again.

use std::collections::HashMap;
use std::time::Duration;

/// The factors by which a correction grows and shrinks, and its maximum.
const GROWTH: f64 = 4.0;
const DECAY: f64 = 0.5;
const MAX_WEIGHT: f64 = 65_536.0;

pub struct Weights {
    /// The longest submission without a correction; `None` without a watchdog.
    long: Option<Duration>,
    by_kernel: HashMap<&'static str, f64>,
}

impl Weights {
    /// `watchdog` is the system's limit.
    pub fn new(watchdog: Option<Duration>) -> Weights {
        Weights { long: watchdog.map(|limit| limit / 6), by_kernel: HashMap::new() }
    }

    /// Returns the corrected work of a launch of `kernel`.
    pub fn correct_work(&self, kernel: &'static str, work: u64) -> u64 {
        if self.by_kernel.is_empty() {
            return work;
        }
        self.by_kernel.get(kernel).map_or(work, |weight| (work as f64 * weight) as u64)
    }

    /// Updates the corrections with the duration of a submission and the counted work of its kernels.
    pub fn adapt(&mut self, kernels: &[(&'static str, u64)], took: Duration) {
        let Some(long) = self.long else { return };
        if took > long {
            for (kernel, _) in kernels {
                let weight = self.by_kernel.entry(kernel).or_insert(1.0);
                *weight = (*weight * GROWTH).min(MAX_WEIGHT);
            }
        } else if took < long / GROWTH as u32 && !self.by_kernel.is_empty() {
            let total: u64 = kernels.iter().map(|(_, work)| work).sum();
            // A short launch of a slow kernel is no evidence about a long one.
            let dominant = kernels.iter().find(|(_, work)| *work > total / 2);
            if let Some(weight) = dominant.and_then(|(kernel, _)| self.by_kernel.get_mut(kernel)) {
                *weight *= DECAY;
            }
            self.by_kernel.retain(|_, weight| *weight > 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// Returns the durations of submissions on a GPU with a rate for each kernel, for divided launches in turn.
    fn simulate_submissions(
        weights: &mut Weights,
        budget: &mut Budget,
        launches: &[(&'static str, u64, f64)],
    ) -> Vec<f64> {
        let mut took = Vec::new();
        let (mut kernels, mut seconds, mut commands) = (Vec::<(&'static str, u64)>::new(), 0.0, 0);
        for (kernel, work, rate) in launches.iter().copied() {
            let (groups, mut done) = (1 << 16, 0);
            let weighed = weights.correct_work(kernel, work);
            while done < groups {
                let left = groups - done;
                let share = |part: u32| (u128::from(weighed) * u128::from(part) / u128::from(groups)) as u64;
                let part = budget.choose_groups(share(left), left);
                seconds += work as f64 * f64::from(part) / f64::from(groups) / rate;
                match kernels.iter_mut().find(|(name, _)| *name == kernel) {
                    Some((_, work)) => *work += share(part),
                    None => kernels.push((kernel, share(part))),
                }
                (commands, done) = (commands + 1, done + part);
                let total: u64 = kernels.iter().map(|(_, work)| work).sum();
                if budget.is_spent(total) {
                    let time = Duration::from_secs_f64(seconds);
                    weights.adapt(&kernels, time);
                    budget.adapt(total, commands, time);
                    took.push(seconds);
                    kernels.clear();
                    (seconds, commands) = (0.0, 0);
                }
            }
        }
        took
    }

    #[test]
    fn submissions_stay_below_a_third_of_the_limit_for_any_estimates() {
        let (mut weights, mut budget) = (Weights::new(Some(LIMIT)), Budget::new());
        // A step of products, with a kernel that takes sixty times its estimate.
        let step = [
            ("product", 40_000_000_000, 1e12),
            ("slow", 4_000_000_000, 1e12 / 60.0),
            ("norm", 1_000_000, 1e12),
        ];
        let warm: Vec<_> = (0..4).flat_map(|_| step).collect();
        simulate_submissions(&mut weights, &mut budget, &warm);
        let steps: Vec<_> = (0..40).flat_map(|_| step).collect();
        let took = simulate_submissions(&mut weights, &mut budget, &steps);
        let longest = took.iter().copied().fold(0.0, f64::max);
        assert!(took.len() > 40, "{} submissions", took.len());
        assert!(longest < LIMIT.as_secs_f64() / 3.0, "a submission took {longest} s");
        // The other kernel's correction is reduced again.
        assert!(weights.correct_work("product", 100) <= 400);
    }

    #[test]
    fn a_short_launch_keeps_the_correction_of_a_slow_kernel() {
        let mut weights = Weights::new(Some(LIMIT));
        weights.adapt(&[("product", 90), ("slow", 10)], Duration::from_millis(500));
        assert_eq!((weights.correct_work("product", 10), weights.correct_work("slow", 10)), (40, 40));
        for _ in 0..3 {
            weights.adapt(&[("product", 90), ("slow", 10)], Duration::from_millis(10));
        }
        assert_eq!((weights.correct_work("product", 10), weights.correct_work("slow", 10)), (10, 40));
    }

    #[test]
    fn estimates_are_not_corrected_without_a_watchdog() {
        let mut weights = Weights::new(None);
        weights.adapt(&[("slow", 10)], Duration::from_secs(60));
        assert_eq!(weights.correct_work("slow", 10), 10);
    }
}
