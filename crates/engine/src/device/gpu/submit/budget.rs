//! The amount of work in a submission, so that it takes about 20 ms.

use std::time::Duration;

/// The target duration of a submission.
const TARGET: Duration = Duration::from_millis(20);
/// The first budget, before any measurement: 20 ms on a software GPU. A fast GPU reaches its budget a dozen submissions
/// later.
const INITIAL: f64 = 1e8;

/// The fewest groups in a part of a launch: about the compute units of a large GPU, which would idle with fewer.
const MIN_GROUPS: u32 = 128;

/// The work of a submission, in operations as estimated for launches.
pub struct Budget(f64);

impl Budget {
    pub fn new() -> Budget {
        Budget(INITIAL)
    }

    pub fn is_spent(&self, work: u64) -> bool {
        work as f64 >= self.0
    }

    /// Returns how many of `groups`, with `work` in total, one dispatch should have: all within the budget; above it,
    /// the groups are divided evenly.
    pub fn choose_groups(&self, work: u64, groups: u32) -> u32 {
        let portions = (work as f64 / self.0).ceil().clamp(1.0, f64::from(groups.max(1)));
        groups.div_ceil(portions as u32).max(MIN_GROUPS).min(groups)
    }

    /// Adjusts the budget to the measured duration of `commands` with `work`. A late poll makes a submission seem
    /// longer, which errs on the safe side.
    pub fn adapt(&mut self, work: u64, commands: u32, took: Duration) {
        let ratio = TARGET.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // A submission that ended at the command limit or for a read is only evidence that the budget is too large.
        let full = work as f64 >= self.0 * 0.5;
        if full || (ratio < 1.0 && commands > 1) {
            let towards = (work as f64 * ratio).max(1.0);
            self.0 = towards.clamp(self.0 * 0.25, self.0 * 2.0).clamp(1e6, 1e13);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the duration of a submission of commands with `work` each on a GPU with `rate` operations per second.
    fn simulate_submission(budget: &mut Budget, work: u64, rate: f64) -> f64 {
        let commands = (1..).find(|count| budget.is_spent(work * count)).expect("it ends");
        let seconds = (work * commands) as f64 / rate;
        budget.adapt(work * commands, commands as u32, Duration::from_secs_f64(seconds));
        seconds
    }

    #[test]
    fn submissions_take_about_20_ms_on_any_gpu() {
        // A software GPU, a small GPU, a large one.
        for rate in [1e9, 3e10, 2e12, 4e13] {
            let mut budget = Budget::new();
            let work = (rate * 3e-4) as u64;
            for _ in 0..20 {
                simulate_submission(&mut budget, work, rate);
            }
            for _ in 0..50 {
                let took = simulate_submission(&mut budget, work, rate);
                assert!((0.018..0.023).contains(&took), "{took} s at {rate}");
            }
            // The GPU becomes ten times slower: one or two submissions are too long.
            let long = (0..6).filter(|_| simulate_submission(&mut budget, work, rate / 10.0) > 0.05).count();
            assert!(long <= 2, "{long} submissions of more than 50 ms at {rate}");
        }
    }

    #[test]
    fn large_launches_are_divided_evenly_into_enough_groups() {
        let budget = Budget::new();
        let first = INITIAL as u64;
        assert_eq!(budget.choose_groups(0, 1000), 1000);
        assert_eq!(budget.choose_groups(first, 1000), 1000);
        assert_eq!(budget.choose_groups(first + 1, 1000), 500);
        assert_eq!(budget.choose_groups(3 * first, 1000), 334);
        assert_eq!(budget.choose_groups(u64::MAX, 1000), MIN_GROUPS);
        assert_eq!(budget.choose_groups(u64::MAX, u32::MAX), MIN_GROUPS);
        assert_eq!(budget.choose_groups(u64::MAX, 3), 3);
    }

    #[test]
    fn early_submissions_can_only_reduce_the_budget() {
        let mut budget = Budget::new();
        budget.adapt(1000, 3, Duration::from_millis(1));
        assert!(budget.is_spent(INITIAL as u64) && !budget.is_spent(INITIAL as u64 - 1));
        budget.adapt(1000, 3, Duration::from_millis(40));
        assert!(budget.is_spent(INITIAL as u64 / 4));
        // One command cannot be shortened.
        let mut budget = Budget::new();
        budget.adapt(1000, 1, Duration::from_millis(40));
        assert!(!budget.is_spent(INITIAL as u64 - 1));
    }
}
