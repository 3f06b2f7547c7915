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
const MAX_WAIT: Duration = Duration::from_secs(60);
const MARK: OperationPass = OperationPass { operation: "autotuning trial", pass: Pass::Other };

/// The state of the trials.
pub struct Trials {
    profile: Profile,
    pub table: Arc<Table>,
    pub(super) tuner: Tuner,
    began: Instant,
    /// Time that trials waited for earlier recorded work, which does not count for them.
    waited: Duration,
    current: Option<CurrentTrial>,
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
        Trials { profile, table, tuner: Tuner::default(), began, waited, current: None }
    }
}

impl Gpu {
    /// Makes one submission of a trial if one is due. Returns whether there is more to do.
    pub(super) fn run_trial_step(&mut self) -> Result<bool> {
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
        self.gpu.in_trial = true;
        let result = commands.into_iter().try_for_each(|command| self.gpu.run(command));
        self.gpu.in_trial = false;
        result
    }

    /// Returns the trial of a class; creates it if needed.
    fn set_up_trial(&mut self, class: &Class, extent: Extent) -> Result<&CurrentTrial> {
        let exists = self.trials.current.as_ref().is_some_and(|c| c.class == *class && c.extent == extent);
        if !exists {
            self.release()?;
            let trial = (class.family.trial)(&self.trials.profile, &class.words, extent)?;
            let commands = trial.setup_commands();
            // Set before the commands run, so that a failed creation is freed, too.
            self.trials.current = Some(CurrentTrial { class: *class, extent, trial });
            self.run(commands)?;
        }
        self.current_trial()
    }

    fn current_trial(&self) -> Result<&CurrentTrial> {
        match &self.trials.current {
            Some(current) => Ok(current),
            None => fail!(Internal, "a trial of nothing"),
        }
    }

    /// Returns a variant's output for arbitrary inputs.
    fn run_for_output(&mut self, variant: Params) -> Result<Vec<u8>> {
        let (send, receive) = channel();
        let commands =
            self.current_trial()?.trial.output(variant, Box::new(move |bytes| drop(send.send(bytes))))?;
        self.run(commands)?;
        let since = Instant::now();
        loop {
            if let Ok(bytes) = receive.try_recv() {
                return bytes;
            }
            self.gpu.idle()?;
            if since.elapsed() > MAX_WAIT {
                fail!(Aborted, "a trial gave no answer for {MAX_WAIT:?}");
            }
        }
    }

    /// Returns the device time in `trace` once it has `count` passes.
    fn wait_for_time(&mut self, trace: &Trace, count: u64) -> Result<Duration> {
        let since = Instant::now();
        while (trace.events().len() as u64) < count {
            self.gpu.submitter.poll()?;
            if since.elapsed() > MAX_WAIT {
                fail!(Aborted, "a trial told no time for {MAX_WAIT:?}");
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

    fn outputs_agree(&mut self, class: &Class, variants: [Params; 2]) -> Result<bool> {
        self.set_up_trial(class, Extent::Odd)?;
        let [first, other] = variants;
        Ok(self.run_for_output(first)? == self.run_for_output(other)?)
    }

    fn measure(&mut self, class: &Class, variant: Params, load: Workload) -> Result<Sample> {
        self.set_up_trial(class, Extent::Within { work: load.work })?;
        let since = Instant::now();
        self.gpu.drain()?;
        self.trials.waited += since.elapsed();
        let trial = &self.current_trial()?.trial;
        let (work, commands) = (trial.work(), trial.run(variant, load.repeats)?);
        let trace = Arc::new(Trace::default());
        self.gpu.submitter.set_note(Some(Note { trace: trace.clone(), mark: MARK }));
        let before = self.gpu.submitter.submitted();
        let since = Instant::now();
        let result = self.run(commands).and_then(|()| self.gpu.drain());
        let elapsed = since.elapsed();
        self.gpu.submitter.set_note(None);
        result?;
        let measured = self.wait_for_time(&trace, self.gpu.submitter.submitted() - before)?;
        // Some drivers report no time or an impossible one.
        let took = if measured.is_zero() || measured > elapsed { elapsed } else { measured };
        Ok(Sample { took, work })
    }

    fn release(&mut self) -> Result<()> {
        let Some(current) = self.trials.current.take() else { return Ok(()) };
        self.run(current.trial.teardown_commands())
    }
}
