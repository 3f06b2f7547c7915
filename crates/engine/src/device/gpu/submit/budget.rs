//! How much work goes into a submission, so that it takes some 20 ms.

use std::time::Duration;

/// What a submission should take.
const TARGET: Duration = Duration::from_millis(20);
/// Of the first submission, before any was measured: 20 ms of a GPU played by a processor. A fast GPU's is reached a
/// dozen submissions later.
const FIRST: f64 = 1e8;

/// Groups that a part of a launch has at least: about as many as large GPUs have compute units, which stand idle with fewer.
const GROUPS: u32 = 128;

/// Work (operations on numbers, as launches estimate them) that a submission may have.
pub struct Budget(f64);

impl Budget {
    pub fn new() -> Budget {
        Budget(FIRST)
    }

    pub fn is_spent(&self, work: u64) -> bool {
        work as f64 >= self.0
    }

    /// How many of `groups`, which do `work` together, go into one dispatch: all, unless a submission may not have as much.
    /// Then they are divided evenly.
    pub fn portion(&self, work: u64, groups: u32) -> u32 {
        let portions = (work as f64 / self.0).ceil().clamp(1.0, f64::from(groups.max(1)));
        groups.div_ceil(portions as u32).max(GROUPS).min(groups)
    }

    /// Takes in that `commands` of `work` took so long. A submission seen late looks longer than it was, which errs on
    /// the careful side.
    pub fn adapt(&mut self, work: u64, commands: u32, took: Duration) {
        let ratio = TARGET.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // One that ended at the count, or for a reader, says only when it is too long.
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

    /// What a submission of commands of `work` takes on a GPU that does `rate` a second.
    fn submitted(budget: &mut Budget, work: u64, rate: f64) -> f64 {
        let commands = (1..).find(|count| budget.is_spent(work * count)).expect("it ends");
        let seconds = (work * commands) as f64 / rate;
        budget.adapt(work * commands, commands as u32, Duration::from_secs_f64(seconds));
        seconds
    }

    #[test]
    fn submissions_take_some_20_ms_whatever_the_gpu() {
        // A processor that plays a GPU, a small GPU, a large one.
        for rate in [1e9, 3e10, 2e12, 4e13] {
            let mut budget = Budget::new();
            let work = (rate * 3e-4) as u64;
            for _ in 0..20 {
                submitted(&mut budget, work, rate);
            }
            for _ in 0..50 {
                let took = submitted(&mut budget, work, rate);
                assert!((0.018..0.023).contains(&took), "{took} s at {rate}");
            }
            // It has become ten times as slow: that is told once or twice.
            let long = (0..6).filter(|_| submitted(&mut budget, work, rate / 10.0) > 0.05).count();
            assert!(long <= 2, "{long} submissions of more than 50 ms at {rate}");
        }
    }

    #[test]
    fn a_launch_of_much_work_is_divided_evenly_and_keeps_a_gpu_busy() {
        let budget = Budget::new();
        let first = FIRST as u64;
        assert_eq!(budget.portion(0, 1000), 1000);
        assert_eq!(budget.portion(first, 1000), 1000);
        assert_eq!(budget.portion(first + 1, 1000), 500);
        assert_eq!(budget.portion(3 * first, 1000), 334);
        assert_eq!(budget.portion(u64::MAX, 1000), GROUPS);
        assert_eq!(budget.portion(u64::MAX, u32::MAX), GROUPS);
        assert_eq!(budget.portion(u64::MAX, 3), 3);
    }

    #[test]
    fn what_ended_early_says_only_that_it_was_too_long() {
        let mut budget = Budget::new();
        budget.adapt(1000, 3, Duration::from_millis(1));
        assert!(budget.is_spent(FIRST as u64) && !budget.is_spent(FIRST as u64 - 1));
        budget.adapt(1000, 3, Duration::from_millis(40));
        assert!(budget.is_spent(FIRST as u64 / 4));
        // One command cannot be shorter than it is.
        let mut budget = Budget::new();
        budget.adapt(1000, 1, Duration::from_millis(40));
        assert!(!budget.is_spent(FIRST as u64 - 1));
    }
}
