//! Tries one class after another, a submission at a time, as long as there is time left for it.

use std::time::Duration;

use super::bench::{Bench, Load};
use super::{Class, Table};
use crate::error::{Code, Error, Result};
use crate::kernel::Params;

/// What trials beside a run take at most, in all.
pub const BUDGET: Duration = Duration::from_secs(2);
/// What a submission of a trial is let take.
pub const LONGEST: Duration = Duration::from_millis(50);
/// What a timed submission takes at least, where the class has as much work: a clock of microseconds tells forms
/// apart then.
const AIM: Duration = Duration::from_millis(2);
/// The work of the first submission of a class: a millisecond of a weak GPU.
const FIRST_WORK: u64 = 1 << 24;
/// By how much the work is raised at once, so that no submission is a surprise.
const RAISE: u64 = 8;
/// The share of the work at which a form shows that it is not out of all proportion.
const PROBE: u64 = 64;
const REPEATS: u32 = 64;
/// Each form's time is its shortest of so many.
const ROUNDS: usize = 3;
/// A form that takes so many times the fastest's is not timed again. One run may be late for other reasons.
const HOPELESS: f64 = 3.0;
/// Small runs that have to take too long before a form is taken to be slow: one may be late for other reasons.
const PROBES: u32 = 3;
/// The first form stays where another is not faster by this share: less is noise.
const MARGIN: f64 = 0.02;

/// What became of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Sound,
    /// It gives other numbers than the first form.
    Wrong,
    /// The device does not run it, and says why.
    Refused(String),
    /// A submission of it would take too long.
    Slow,
}

/// A form of a class, and what was found.
#[derive(Clone, Debug)]
pub struct Tried {
    pub form: Params,
    pub verdict: Verdict,
    /// The shortest that one run took.
    pub took: Option<Duration>,
}

/// What was found for a class.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub class: Class,
    /// In the order that they were given in.
    pub forms: Vec<Tried>,
    pub chosen: Params,
    /// Operations of the run that was timed.
    pub work: u64,
}

/// A class that waits for its trial.
#[derive(Clone, Debug)]
pub struct Job {
    pub class: Class,
    /// The one that is taken unasked first.
    pub forms: Vec<Params>,
    /// Whether somebody waits for it, who has set no limit.
    pub asked: bool,
}

enum Stage {
    /// The numbers of the form at that place.
    Compare(usize),
    /// How much work takes long enough.
    Raise,
    /// A small run of the form at that place, and how often it took too long.
    Probe {
        at: usize,
        slow: u32,
    },
    Time {
        round: usize,
        at: usize,
    },
}

struct Trying {
    job: Job,
    tried: Vec<Tried>,
    stage: Stage,
    load: Load,
    work: u64,
}

pub struct Tuner {
    trying: Option<Trying>,
    budget: Duration,
    spent: Duration,
}

impl Default for Tuner {
    fn default() -> Self {
        Tuner::within(BUDGET)
    }
}

impl Tuner {
    /// One that takes at most `budget` for what nobody asked for.
    pub fn within(budget: Duration) -> Tuner {
        Tuner { trying: None, budget, spent: Duration::ZERO }
    }

    /// Makes one submission, if a class waits. Returns whether there is more to do.
    ///
    /// # Errors
    /// Where the device was lost; what else fails leaves the class without a choice.
    pub fn step(&mut self, bench: &mut impl Bench, table: &Table) -> Result<bool> {
        if self.trying.is_none() {
            self.trying = table.next().map(|job| Trying::new(job, table));
        }
        let Some(trying) = &mut self.trying else { return Ok(false) };
        let asked = trying.job.asked;
        // The submission to come counts as the longest.
        if !asked && self.spent + LONGEST > self.budget {
            return self.leave(bench, table);
        }
        let before = bench.now();
        let stepped = trying.step(bench, table);
        if !asked {
            self.spent += bench.now().saturating_sub(before);
        }
        match stepped {
            Ok(true) => return Ok(true),
            Ok(false) => table.settle(trying.outcome()),
            Err(error) if error.code == Code::DeviceLost => return Err(error),
            // No room for trials: what is there is the run's.
            Err(error) if error.code == Code::OutOfMemory && !asked => return self.leave(bench, table),
            Err(error) => table.fail(&trying.job.class, &error),
        }
        self.trying = None;
        bench.done()?;
        Ok(true)
    }

    /// Tries nothing more beside a run.
    fn leave(&mut self, bench: &mut impl Bench, table: &Table) -> Result<bool> {
        self.trying = None;
        table.close();
        bench.done()?;
        Ok(true)
    }
}

impl Trying {
    fn new(job: Job, table: &Table) -> Trying {
        let tried = job.forms.iter().enumerate().map(|(i, form)| {
            let wrong = i > 0 && table.is_wrong(&job.class, *form);
            Tried { form: *form, verdict: if wrong { Verdict::Wrong } else { Verdict::Sound }, took: None }
        });
        let load = Load { work: FIRST_WORK, repeats: 1 };
        Trying { tried: tried.collect(), stage: Stage::Compare(1), load, work: 0, job }
    }

    fn is_sound(&self, at: usize) -> bool {
        self.tried[at].verdict == Verdict::Sound
    }

    /// The first place from `at` on whose form is still tried.
    fn next_sound(&self, at: usize) -> Option<usize> {
        (at..self.tried.len()).find(|i| self.is_sound(*i))
    }

    /// One submission. Returns whether more are needed.
    fn step(&mut self, bench: &mut impl Bench, table: &Table) -> Result<bool> {
        // Stages that have nothing left to do are passed over.
        loop {
            let next = match self.stage {
                Stage::Compare(at) => match self.next_sound(at) {
                    Some(at) => return self.compare(bench, table, at),
                    None => Stage::Raise,
                },
                // With the first form alone there is nothing to choose.
                Stage::Raise if self.next_sound(1).is_none() => return Ok(false),
                Stage::Raise => return self.raise(bench),
                Stage::Probe { at, slow } => match self.next_sound(at) {
                    Some(at) => return self.probe(bench, at, slow),
                    None => Stage::Time { round: 0, at: 0 },
                },
                Stage::Time { round, .. } if round == ROUNDS => return Ok(false),
                Stage::Time { round, at } => match self.next_hopeful(at) {
                    Some(at) => return self.time(bench, round, at),
                    None => Stage::Time { round: round + 1, at: 0 },
                },
            };
            self.stage = next;
        }
    }

    fn compare(&mut self, bench: &mut impl Bench, table: &Table, at: usize) -> Result<bool> {
        let form = self.tried[at].form;
        match bench.agree(&self.job.class, [self.tried[0].form, form]) {
            Ok(true) => {}
            Ok(false) => {
                self.tried[at].verdict = Verdict::Wrong;
                table.drop_wrong(&self.job.class, [self.tried[0].form, form]);
            }
            Err(error) => self.refused(at, error)?,
        }
        self.stage = Stage::Compare(at + 1);
        Ok(true)
    }

    /// A form that a device does not compile is no fault of the device.
    fn refused(&mut self, at: usize, error: Error) -> Result<()> {
        if at == 0 || error.code != Code::Internal {
            return Err(error);
        }
        self.tried[at].verdict = Verdict::Refused(error.message);
        Ok(())
    }

    fn raise(&mut self, bench: &mut impl Bench) -> Result<bool> {
        let sample = bench.time(&self.job.class, self.tried[0].form, self.load)?;
        let took = sample.took.as_secs_f64().max(1e-7);
        let more = AIM.as_secs_f64() / took;
        // A class that is smaller than it was let be has no more work.
        let whole = self.work > 0 && sample.work <= self.work;
        self.work = sample.work;
        if more <= 1.0 || whole {
            if more > 1.0 {
                self.load.repeats = (more.ceil() as u32).min(REPEATS);
            }
            self.stage = Stage::Probe { at: 1, slow: 0 };
        } else {
            self.load.work = self.load.work.saturating_mul((more.ceil() as u64).clamp(2, RAISE));
        }
        Ok(true)
    }

    fn probe(&mut self, bench: &mut impl Bench, at: usize, slow: u32) -> Result<bool> {
        let (load, share) = match self.load {
            Load { work, repeats: 1 } => (Load { work: work / PROBE, repeats: 1 }, PROBE as u32),
            Load { work, repeats } => (Load { work, repeats: 1 }, repeats),
        };
        match bench.time(&self.job.class, self.tried[at].form, load) {
            Ok(sample) if sample.took * share > LONGEST => {
                if slow + 1 < PROBES {
                    self.stage = Stage::Probe { at, slow: slow + 1 };
                    return Ok(true);
                }
                self.tried[at].verdict = Verdict::Slow;
            }
            Ok(_) => {}
            Err(error) => self.refused(at, error)?,
        }
        self.stage = Stage::Probe { at: at + 1, slow: 0 };
        Ok(true)
    }

    /// The first place from `at` on whose form may yet be the fastest.
    fn next_hopeful(&self, at: usize) -> Option<usize> {
        let fastest = self.tried.iter().filter_map(|t| t.took).min();
        (at..self.tried.len()).find(|i| {
            let far = match (self.tried[*i].took, fastest) {
                (Some(took), Some(fastest)) => took.as_secs_f64() > HOPELESS * fastest.as_secs_f64(),
                _ => false,
            };
            self.is_sound(*i) && !far
        })
    }

    fn time(&mut self, bench: &mut impl Bench, round: usize, at: usize) -> Result<bool> {
        match bench.time(&self.job.class, self.tried[at].form, self.load) {
            Ok(sample) => {
                let took = sample.took / self.load.repeats;
                let tried = &mut self.tried[at];
                tried.took = Some(tried.took.map_or(took, |before| before.min(took)));
            }
            Err(error) => self.refused(at, error)?,
        }
        self.stage = Stage::Time { round, at: at + 1 };
        Ok(true)
    }

    fn outcome(&self) -> Outcome {
        let first = &self.tried[0];
        let fastest = self
            .tried
            .iter()
            .filter(|t| t.verdict == Verdict::Sound && t.took.is_some())
            .min_by_key(|t| t.took);
        let chosen = match (first.took, fastest) {
            (Some(own), Some(Tried { form, took: Some(took), .. }))
                if took.as_secs_f64() < (1.0 - MARGIN) * own.as_secs_f64() =>
            {
                *form
            }
            _ => first.form,
        };
        Outcome { class: self.job.class, forms: self.tried.clone(), chosen, work: self.work }
    }
}
