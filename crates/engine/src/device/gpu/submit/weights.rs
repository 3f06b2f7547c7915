//! Corrections of what kernels are estimated to take, learnt from submissions that came near to the watchdog's limit.
//!
//! A submission has the work of some 20 ms by the rate of those before it (`budget`). That holds as long as estimates of
//! all kernels are about equally wrong. A kernel that takes a hundred times what its estimate says would still fill
//! seconds, and the system resets a GPU whose submission takes too long. So where a submission took more than a sixth of
//! the limit, each of its kernels counts for more from then on: half of the third that submissions may take is left. A
//! kernel that was only beside the slow one makes up most of other submissions, which take little time and take the
//! correction back.

use std::collections::HashMap;
use std::time::Duration;

/// What a correction grows and shrinks by, and what it may come to.
const STEP: f64 = 4.0;
const RELAX: f64 = 0.5;
const MOST: f64 = 65_536.0;

pub struct Weights {
    /// What a submission takes at most without a correction; none where nothing watches.
    long: Option<Duration>,
    by_kernel: HashMap<&'static str, f64>,
}

impl Weights {
    /// `watchdog` is the limit of the system.
    pub fn new(watchdog: Option<Duration>) -> Weights {
        Weights { long: watchdog.map(|limit| limit / 6), by_kernel: HashMap::new() }
    }

    /// The work that a launch of `kernel` counts for.
    pub fn weigh(&self, kernel: &'static str, work: u64) -> u64 {
        if self.by_kernel.is_empty() {
            return work;
        }
        self.by_kernel.get(kernel).map_or(work, |weight| (work as f64 * weight) as u64)
    }

    /// Learns that a submission of these kernels, with the work that each counted for, took so long.
    pub fn adapt(&mut self, kernels: &[(&'static str, u64)], took: Duration) {
        let Some(long) = self.long else { return };
        if took > long {
            for (kernel, _) in kernels {
                let weight = self.by_kernel.entry(kernel).or_insert(1.0);
                *weight = (*weight * STEP).min(MOST);
            }
        } else if took < long / STEP as u32 && !self.by_kernel.is_empty() {
            let total: u64 = kernels.iter().map(|(_, work)| work).sum();
            // A short launch of a slow kernel says nothing of a long one.
            let most = kernels.iter().find(|(_, work)| *work > total / 2);
            if let Some(weight) = most.and_then(|(kernel, _)| self.by_kernel.get_mut(kernel)) {
                *weight *= RELAX;
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

    /// What submissions take on a GPU that does `rates` a second of each kernel, for launches in turn, each divided.
    fn submitted(
        weights: &mut Weights,
        budget: &mut Budget,
        launches: &[(&'static str, u64, f64)],
    ) -> Vec<f64> {
        let mut took = Vec::new();
        let (mut kernels, mut seconds, mut commands) = (Vec::<(&'static str, u64)>::new(), 0.0, 0);
        for (kernel, work, rate) in launches.iter().copied() {
            let (groups, mut done) = (1 << 16, 0);
            let weighed = weights.weigh(kernel, work);
            while done < groups {
                let left = groups - done;
                let share = |part: u32| (u128::from(weighed) * u128::from(part) / u128::from(groups)) as u64;
                let part = budget.portion(share(left), left);
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
    fn submissions_stay_below_a_third_of_the_limit_whatever_the_estimates() {
        let (mut weights, mut budget) = (Weights::new(Some(LIMIT)), Budget::new());
        // A step of products, with a kernel that takes sixty times what it is estimated to.
        let step = [
            ("product", 40_000_000_000, 1e12),
            ("slow", 4_000_000_000, 1e12 / 60.0),
            ("norm", 1_000_000, 1e12),
        ];
        let warm: Vec<_> = (0..4).flat_map(|_| step).collect();
        submitted(&mut weights, &mut budget, &warm);
        let steps: Vec<_> = (0..40).flat_map(|_| step).collect();
        let took = submitted(&mut weights, &mut budget, &steps);
        let longest = took.iter().copied().fold(0.0, f64::max);
        assert!(took.len() > 40, "{} submissions", took.len());
        assert!(longest < LIMIT.as_secs_f64() / 3.0, "a submission took {longest} s");
        // The one beside it counts for what it is again.
        assert!(weights.weigh("product", 100) <= 400);
    }

    #[test]
    fn a_slow_kernel_keeps_its_correction_when_a_short_launch_of_it_ends_soon() {
        let mut weights = Weights::new(Some(LIMIT));
        weights.adapt(&[("product", 90), ("slow", 10)], Duration::from_millis(500));
        assert_eq!((weights.weigh("product", 10), weights.weigh("slow", 10)), (40, 40));
        for _ in 0..3 {
            weights.adapt(&[("product", 90), ("slow", 10)], Duration::from_millis(10));
        }
        assert_eq!((weights.weigh("product", 10), weights.weigh("slow", 10)), (10, 40));
    }

    #[test]
    fn nothing_is_corrected_where_nothing_watches() {
        let mut weights = Weights::new(None);
        weights.adapt(&[("slow", 10)], Duration::from_secs(60));
        assert_eq!(weights.weigh("slow", 10), 10);
    }
}
