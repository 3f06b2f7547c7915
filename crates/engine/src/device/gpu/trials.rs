//! Autotuning trials on this GPU, between recorded work. They use separate buffers, which are freed with the class.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::Gpu;
use crate::device::Runner;
use crate::error::Result;
use crate::fail;
use crate::kernel::Params;
use crate::profile::Profile;
use crate::recording::Command;
use crate::trace::{Note, OperationPass, Pass, Trace};
use crate::tune::bench::{Bench, Sample, Workload};
use crate::tune::{Class, Extent, Table, Trial, Tuner};

/// The longest wait for a trial's result: a software GPU compiles a shader at its first run, which takes seconds on a
/// busy machine. A real GPU that hangs is reported as lost before.
const PATIENCE: Duration = Duration::from_secs(60);
const MARK: OperationPass = OperationPass { operation: "autotuning trial", pass: Pass::Other };

/// The state of the trials.
pub struct Trials {
    profile: Profile,
    pub table: Arc<Table>,
    pub(super) tuner: Tuner,
    began: Instant,
    /// Time that trials waited for earlier recorded work, which does not count for them.
    waited: Duration,
    held: Option<CurrentTrial>,
}

/// The current class and its buffers.
struct CurrentTrial {
    class: Class,
    extent: Extent,
    trial: Box<dyn Trial>,
}

impl Trials {
    pub fn new(profile: Profile, table: Arc<Table>) -> Trials {
        let (began, waited) = (Instant::now(), Duration::ZERO);
        Trials { profile, table, tuner: Tuner::default(), began, waited, held: None }
    }
}

impl Gpu {
    /// Makes one submission of a trial if one is due. Returns whether there is more to do.
    pub(super) fn try_variants(&mut self) -> Result<bool> {
        let Some(mut trials) = self.trials.take() else { return Ok(false) };
        let (table, mut tuner) = (trials.table.clone(), std::mem::take(&mut trials.tuner));
        let mut bench = GpuTrials { gpu: self, trials: &mut trials };
        let more = tuner.step(&mut bench, &table);
        trials.tuner = tuner;
        self.trials = Some(trials);
        // An asynchronous fault concerns the device, not only the trial.
        self.faults.check()?;
        more
    }
}

struct GpuTrials<'a> {
    gpu: &'a mut Gpu,
    trials: &'a mut Trials,
}

impl GpuTrials<'_> {
    fn run(&mut self, commands: Vec<Command>) -> Result<()> {
        self.gpu.trying = true;
        let ran = commands.into_iter().try_for_each(|command| self.gpu.run(command));
        self.gpu.trying = false;
        ran
    }

    /// Returns the trial of a class; creates it if needed.
    fn hold(&mut self, class: &Class, extent: Extent) -> Result<&CurrentTrial> {
        let there = self.trials.held.as_ref().is_some_and(|h| h.class == *class && h.extent == extent);
        if !there {
            self.done()?;
            let trial = (class.family.trial)(&self.trials.profile, &class.words, extent)?;
            let commands = trial.setup_commands();
            // Set before the commands run, so that a failed creation is freed, too.
            self.trials.held = Some(CurrentTrial { class: *class, extent, trial });
            self.run(commands)?;
        }
        self.held_device()
    }

    fn held_device(&self) -> Result<&CurrentTrial> {
        match &self.trials.held {
            Some(held) => Ok(held),
            None => fail!(Internal, "a trial of nothing"),
        }
    }

    /// Returns a variant's output for arbitrary inputs.
    fn output(&mut self, variant: Params) -> Result<Vec<u8>> {
        let (send, receive) = channel();
        let commands =
            self.held_device()?.trial.output(variant, Box::new(move |bytes| drop(send.send(bytes))))?;
        self.run(commands)?;
        let since = Instant::now();
        loop {
            if let Ok(bytes) = receive.try_recv() {
                return bytes;
            }
            self.gpu.idle()?;
            if since.elapsed() > PATIENCE {
                fail!(Aborted, "a trial gave no answer for {PATIENCE:?}");
            }
        }
    }

    /// Returns the device time in `trace` once it has `count` passes.
    fn wait_for_time(&mut self, trace: &Trace, count: u64) -> Result<Duration> {
        let since = Instant::now();
        while (trace.events().len() as u64) < count {
            self.gpu.submitter.poll()?;
            if since.elapsed() > PATIENCE {
                fail!(Aborted, "a trial told no time for {PATIENCE:?}");
            }
            std::thread::yield_now();
        }
        Ok(trace.totals().iter().map(|(_, total)| total.device).sum())
    }
}

impl Bench for GpuTrials<'_> {
    fn now(&self) -> Duration {
        self.trials.began.elapsed().saturating_sub(self.trials.waited)
    }

    fn agree(&mut self, class: &Class, variants: [Params; 2]) -> Result<bool> {
        self.hold(class, Extent::Odd)?;
        let [first, other] = variants;
        Ok(self.output(first)? == self.output(other)?)
    }

    fn time(&mut self, class: &Class, variant: Params, load: Workload) -> Result<Sample> {
        self.hold(class, Extent::Within { work: load.work })?;
        let since = Instant::now();
        self.gpu.drain()?;
        self.trials.waited += since.elapsed();
        let trial = &self.held_device()?.trial;
        let (work, commands) = (trial.work(), trial.run(variant, load.repeats)?);
        let trace = Arc::new(Trace::default());
        self.gpu.submitter.note(Some(Note { trace: trace.clone(), mark: MARK }));
        let before = self.gpu.submitter.submitted();
        let since = Instant::now();
        let ran = self.run(commands).and_then(|()| self.gpu.drain());
        let elapsed = since.elapsed();
        self.gpu.submitter.note(None);
        ran?;
        let told = self.wait_for_time(&trace, self.gpu.submitter.submitted() - before)?;
        // Some drivers report no time or an impossible one.
        let took = if told.is_zero() || told > elapsed { elapsed } else { told };
        Ok(Sample { took, work })
    }

    fn done(&mut self) -> Result<()> {
        let Some(held) = self.trials.held.take() else { return Ok(()) };
        self.run(held.trial.teardown_commands())
    }
}
