//! Measures one class after another, one submission at a time, within a time budget.

use std::time::Duration;

use super::bench::{Bench, Workload};
use super::{Class, Table};
use crate::error::{Code, Error, Result};
use crate::kernel::Params;

/// The time budget of all trials during runs.
pub const BUDGET: Duration = Duration::from_secs(2);
/// The longest allowed time of a trial's submission.
pub const MAX_SUBMISSION: Duration = Duration::from_millis(50);
/// The shortest time of a timed submission, if the class has enough work; a clock with microseconds can then
/// distinguish variants.
const MIN_MEASURED: Duration = Duration::from_millis(2);
/// The work of a class's first submission: a millisecond on a weak GPU.
const FIRST_WORK: u64 = 1 << 24;
/// The factor by which the work increases per submission, so that no submission takes unexpectedly long.
const MAX_RAISE: u64 = 8;
/// The divisor of the work for a probe, which detects disproportionately slow variants.
const PROBE_DIVISOR: u64 = 64;
const MAX_REPEATS: u32 = 64;
/// Timed rounds; a variant's time is its shortest.
const ROUNDS: usize = 3;
/// A variant that takes this many times the fastest's time is not timed again. A single run may be delayed by other
/// causes.
const SLOW_RATIO: f64 = 3.0;
/// Probes that must take too long before a variant counts as slow; a single one may be delayed by other causes.
const MAX_PROBES: u32 = 3;
/// A variant replaces the default only if it is faster by this share; less is noise.
const MARGIN: f64 = 0.02;

/// The result of measuring a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sound,
    /// Its result differs from the default's.
    Wrong,
    /// The device cannot run it, with the reason.
    Refused(String),
    /// A submission would take too long.
    Slow,
}

/// A variant of a class, and its result.
#[derive(Clone, Debug)]
pub struct MeasuredVariant {
    pub variant: Params,
    pub verdict: Verdict,
    /// The shortest time of one run.
    pub took: Option<Duration>,
}

/// The results of a class.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub class: Class,
    /// In the given order.
    pub variants: Vec<MeasuredVariant>,
    pub chosen: Params,
    /// Operations of the timed run.
    pub work: u64,
}

/// A class in the queue.
#[derive(Clone, Debug)]
pub struct Job {
    pub class: Class,
    /// The variants, the default first.
    pub variants: Vec<Params>,
    /// Whether it was requested explicitly, without a time limit.
    pub requested: bool,
}

enum Stage {
    /// Compare the result of the variant at that index.
    Compare(usize),
    /// Find the work that takes long enough.
    Raise,
    /// Probe the variant at that index, with the number of slow probes so far.
    Probe {
        at: usize,
        slow: u32,
    },
    Time {
        round: usize,
        at: usize,
    },
}

struct ClassTrial {
    job: Job,
    measured: Vec<MeasuredVariant>,
    stage: Stage,
    load: Workload,
    work: u64,
}

pub struct Tuner {
    current: Option<ClassTrial>,
    budget: Duration,
    spent: Duration,
}

impl Default for Tuner {
    fn default() -> Self {
        Tuner::with_budget(BUDGET)
    }
}

impl Tuner {
    /// A tuner with a time budget for classes that were not requested explicitly.
    pub fn with_budget(budget: Duration) -> Tuner {
        Tuner { current: None, budget, spent: Duration::ZERO }
    }

    /// Makes one submission if a class is queued. Returns whether there is more to do.
    ///
    /// # Errors
    /// The device was lost; any other failure leaves the class without a result.
    pub fn step(&mut self, bench: &mut impl Bench, table: &Table) -> Result<bool> {
        if self.current.is_none() {
            self.current = table.next().map(|job| ClassTrial::new(job, table));
        }
        let Some(current) = &mut self.current else { return Ok(false) };
        let requested = current.job.requested;
        // The next submission counts as the longest.
        if !requested && self.spent + MAX_SUBMISSION > self.budget {
            return self.finish_measuring(bench, table);
        }
        let before = bench.now();
        let result = current.step(bench, table);
        if !requested {
            self.spent += bench.now().saturating_sub(before);
        }
        match result {
            Ok(true) => return Ok(true),
            Ok(false) => table.record_outcome(current.make_outcome()),
            Err(error) if error.code == Code::DeviceLost => return Err(error),
            // No memory for trials: the run needs it.
            Err(error) if error.code == Code::OutOfMemory && !requested => {
                return self.finish_measuring(bench, table);
            }
            Err(error) => table.record_failure(&current.job.class, &error),
        }
        self.current = None;
        bench.release()?;
        Ok(true)
    }

    /// Ends measuring during runs.
    fn finish_measuring(&mut self, bench: &mut impl Bench, table: &Table) -> Result<bool> {
        self.current = None;
        table.close();
        bench.release()?;
        Ok(true)
    }
}

impl ClassTrial {
    fn new(job: Job, table: &Table) -> ClassTrial {
        let measured = job.variants.iter().enumerate().map(|(i, variant)| {
            let wrong = i > 0 && table.is_wrong(&job.class, *variant);
            MeasuredVariant {
                variant: *variant,
                verdict: if wrong { Verdict::Wrong } else { Verdict::Sound },
                took: None,
            }
        });
        let load = Workload { work: FIRST_WORK, repeats: 1 };
        ClassTrial { measured: measured.collect(), stage: Stage::Compare(1), load, work: 0, job }
    }

    fn is_sound(&self, at: usize) -> bool {
        self.measured[at].verdict == Verdict::Sound
    }

    /// The first index from `at` on whose variant is still measured.
    fn next_sound(&self, at: usize) -> Option<usize> {
        (at..self.measured.len()).find(|i| self.is_sound(*i))
    }

    /// Makes one submission. Returns whether more are needed.
    fn step(&mut self, bench: &mut impl Bench, table: &Table) -> Result<bool> {
        // Skips stages without work.
        loop {
            let next = match self.stage {
                Stage::Compare(at) => match self.next_sound(at) {
                    Some(at) => return self.compare(bench, table, at),
                    None => Stage::Raise,
                },
                // With the default alone there is no choice.
                Stage::Raise if self.next_sound(1).is_none() => return Ok(false),
                Stage::Raise => return self.raise_work(bench),
                Stage::Probe { at, slow } => match self.next_sound(at) {
                    Some(at) => return self.probe(bench, at, slow),
                    None => Stage::Time { round: 0, at: 0 },
                },
                Stage::Time { round, .. } if round == ROUNDS => return Ok(false),
                Stage::Time { round, at } => match self.next_candidate(at) {
                    Some(at) => return self.measure(bench, round, at),
                    None => Stage::Time { round: round + 1, at: 0 },
                },
            };
            self.stage = next;
        }
    }

    fn compare(&mut self, bench: &mut impl Bench, table: &Table, at: usize) -> Result<bool> {
        let variant = self.measured[at].variant;
        match bench.outputs_agree(&self.job.class, [self.measured[0].variant, variant]) {
            Ok(true) => {}
            Ok(false) => {
                self.measured[at].verdict = Verdict::Wrong;
                table.exclude(&self.job.class, [self.measured[0].variant, variant]);
            }
            Err(error) => self.record_refusal(at, error)?,
        }
        self.stage = Stage::Compare(at + 1);
        Ok(true)
    }

    /// Records that a device cannot compile a variant, which is not a device error.
    fn record_refusal(&mut self, at: usize, error: Error) -> Result<()> {
        if at == 0 || error.code != Code::Internal {
            return Err(error);
        }
        self.measured[at].verdict = Verdict::Refused(error.message);
        Ok(())
    }

    fn raise_work(&mut self, bench: &mut impl Bench) -> Result<bool> {
        let sample = bench.measure(&self.job.class, self.measured[0].variant, self.load)?;
        let took = sample.took.as_secs_f64().max(1e-7);
        let more = MIN_MEASURED.as_secs_f64() / took;
        // A class smaller than the allowed work has no more work.
        let is_complete = self.work > 0 && sample.work <= self.work;
        self.work = sample.work;
        if more <= 1.0 || is_complete {
            if more > 1.0 {
                self.load.repeats = (more.ceil() as u32).min(MAX_REPEATS);
            }
            self.stage = Stage::Probe { at: 1, slow: 0 };
        } else {
            self.load.work = self.load.work.saturating_mul((more.ceil() as u64).clamp(2, MAX_RAISE));
        }
        Ok(true)
    }

    fn probe(&mut self, bench: &mut impl Bench, at: usize, slow: u32) -> Result<bool> {
        let (load, share) = match self.load {
            Workload { work, repeats: 1 } => {
                (Workload { work: work / PROBE_DIVISOR, repeats: 1 }, PROBE_DIVISOR as u32)
            }
            Workload { work, repeats } => (Workload { work, repeats: 1 }, repeats),
        };
        match bench.measure(&self.job.class, self.measured[at].variant, load) {
            Ok(sample) if sample.took * share > MAX_SUBMISSION => {
                if slow + 1 < MAX_PROBES {
                    self.stage = Stage::Probe { at, slow: slow + 1 };
                    return Ok(true);
                }
                self.measured[at].verdict = Verdict::Slow;
            }
            Ok(_) => {}
            Err(error) => self.record_refusal(at, error)?,
        }
        self.stage = Stage::Probe { at: at + 1, slow: 0 };
        Ok(true)
    }

    /// The first index from `at` on whose variant may still be the fastest.
    fn next_candidate(&self, at: usize) -> Option<usize> {
        let fastest = self.measured.iter().filter_map(|t| t.took).min();
        (at..self.measured.len()).find(|i| {
            let is_slow = match (self.measured[*i].took, fastest) {
                (Some(took), Some(fastest)) => took.as_secs_f64() > SLOW_RATIO * fastest.as_secs_f64(),
                _ => false,
            };
            self.is_sound(*i) && !is_slow
        })
    }

    fn measure(&mut self, bench: &mut impl Bench, round: usize, at: usize) -> Result<bool> {
        match bench.measure(&self.job.class, self.measured[at].variant, self.load) {
            Ok(sample) => {
                let took = sample.took / self.load.repeats;
                let measured = &mut self.measured[at];
                measured.took = Some(measured.took.map_or(took, |before| before.min(took)));
            }
            Err(error) => self.record_refusal(at, error)?,
        }
        self.stage = Stage::Time { round, at: at + 1 };
        Ok(true)
    }

    fn make_outcome(&self) -> Outcome {
        let first = &self.measured[0];
        let fastest = self
            .measured
            .iter()
            .filter(|t| t.verdict == Verdict::Sound && t.took.is_some())
            .min_by_key(|t| t.took);
        let chosen = match (first.took, fastest) {
            (Some(own), Some(MeasuredVariant { variant, took: Some(took), .. }))
                if took.as_secs_f64() < (1.0 - MARGIN) * own.as_secs_f64() =>
            {
                *variant
            }
            _ => first.variant,
        };
        Outcome { class: self.job.class, variants: self.measured.clone(), chosen, work: self.work }
    }
}
