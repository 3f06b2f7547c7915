//! Bounded submissions: commands are encoded into one list, handed to the GPU in portions of
//! some 20 ms, and watched until done, so that neither watchdogs nor the display suffer.

mod budget;
mod weights;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use self::budget::Budget;
use self::weights::Weights;
use super::fault::Faults;
use super::timing::Timing;
use crate::error::{Code, Error, Result};
use crate::kernel::{Kernel, Launch};
use crate::trace::{Cost, Note};

/// Commands of a submission at most: a token of a model of 64 blocks.
const COMMANDS: u32 = 1024;
/// Submissions that the GPU may have before it at once.
const IN_FLIGHT: usize = 3;

/// Work that a byte moved stands for: kernels without arithmetic are bound by memory.
pub const WORK_PER_BYTE: u64 = 4;

pub struct Submitter {
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    // Before the encoder, so that it is dropped first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    commands: u32,
    work: u64,
    budget: Budget,
    weights: Weights,
    /// The kernels of what is encoded.
    kernels: Kernels,
    in_flight: VecDeque<Flight>,
    submitted: Arc<AtomicU64>,
    /// Microseconds of the longest submission so far.
    longest: Arc<AtomicU64>,
    last_done: Instant,
    timing: Timing,
    /// Whether the next submission is to fail without a word.
    #[cfg(test)]
    pub loses_next: bool,
}

/// Kernels by name, and the work that each counted for.
type Kernels = SmallVec<[(&'static str, u64); 16]>;

struct Flight {
    kernels: Kernels,
    index: wgpu::SubmissionIndex,
    work: u64,
    commands: u32,
    start: Instant,
    done: Arc<OnceLock<Instant>>,
    note: Option<Note>,
}

impl Submitter {
    /// `watchdog` is how many milliseconds a submission may take before the system ends it.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, faults: Faults, watchdog: Option<u32>) -> Self {
        Submitter {
            timing: Timing::new(&device, &queue),
            device,
            queue,
            faults,
            pass: None,
            encoder: None,
            commands: 0,
            work: 0,
            budget: Budget::new(),
            weights: Weights::new(watchdog.map(|ms| Duration::from_millis(ms.into()))),
            kernels: Kernels::new(),
            in_flight: VecDeque::new(),
            submitted: Arc::default(),
            longest: Arc::default(),
            last_done: Instant::now(),
            #[cfg(test)]
            loses_next: false,
        }
    }

    /// Where copies are encoded.
    pub fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()))
    }

    /// Where dispatches are encoded: one pass for as many as follow each other.
    pub fn pass(&mut self) -> &mut wgpu::ComputePass<'static> {
        let encoder =
            self.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()));
        self.pass.get_or_insert_with(|| {
            let timestamp_writes = self.timing.begin();
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        })
    }

    /// Whose what follows is, while a trace is on.
    pub fn note(&mut self, note: Option<Note>) {
        if self.timing.note(note) {
            self.pass = None;
        }
    }

    /// Notes that `groups` of `launch` were encoded, which count for `work`.
    pub fn launched(&mut self, launch: &Launch, groups: u32, work: u64) {
        self.timing.launched(launch, groups);
        let name = launch.kernel.name;
        match self.kernels.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(work),
            None => self.kernels.push((name, work)),
        }
    }

    /// `work` of a kernel, corrected by what its submissions were measured to take.
    pub fn weigh(&self, kernel: &Kernel, work: u64) -> u64 {
        self.weights.weigh(kernel.name, work)
    }

    /// How many of `groups`, which do `work` together, one dispatch should have.
    pub fn portion(&self, work: u64, groups: u32) -> u32 {
        self.budget.portion(work, groups)
    }

    /// Counts a command that was encoded; returns whether it is time to submit.
    pub fn count(&mut self, work: u64) -> bool {
        self.commands += 1;
        self.work = self.work.saturating_add(work);
        self.commands >= COMMANDS || self.budget.is_spent(self.work)
    }

    pub fn has_commands(&self) -> bool {
        self.encoder.is_some()
    }

    /// Hands over what is encoded. Waits while the GPU has enough before it.
    pub fn submit(&mut self) -> Result<()> {
        self.pass = None;
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        let times = self.timing.resolve(&mut encoder);
        let buffer = encoder.finish();
        #[cfg(test)]
        let buffer = self.lost_on_purpose(buffer);
        while self.in_flight.len() >= IN_FLIGHT {
            self.wait_for_oldest(Duration::from_millis(200))?;
        }
        let done = Arc::new(OnceLock::new());
        let told = done.clone();
        let index = self.queue.submit([buffer]);
        self.queue.on_submitted_work_done(move || {
            told.set(Instant::now()).ok();
        });
        let start = Instant::now();
        if let Some(times) = times {
            self.timing.ask(times, start);
        }
        self.in_flight.push_back(Flight {
            index,
            work: std::mem::take(&mut self.work),
            commands: std::mem::take(&mut self.commands),
            kernels: std::mem::take(&mut self.kernels),
            start,
            done,
            note: self.timing.untimed(),
        });
        self.submitted.fetch_add(1, Ordering::Relaxed);
        self.poll()
    }

    /// An empty list in place of `buffer` where the test asks for it: what Metal makes of a submission that fails.
    #[cfg(test)]
    fn lost_on_purpose(&mut self, buffer: wgpu::CommandBuffer) -> wgpu::CommandBuffer {
        if !std::mem::take(&mut self.loses_next) {
            return buffer;
        }
        self.device.create_command_encoder(&Default::default()).finish()
    }

    /// Is busy until the test says when its work was done, however fast the GPU.
    #[cfg(test)]
    pub fn keep_busy(&mut self) -> Arc<OnceLock<Instant>> {
        let done = Arc::new(OnceLock::new());
        let index = self.queue.submit([]);
        let start = Instant::now();
        self.in_flight.push_back(Flight {
            index,
            work: 1,
            commands: 1,
            kernels: Kernels::new(),
            start,
            done: done.clone(),
            note: None,
        });
        self.submitted.fetch_add(1, Ordering::Relaxed);
        done
    }

    /// The number of the newest submission.
    pub fn submitted(&self) -> u64 {
        self.submitted.load(Ordering::Relaxed)
    }

    /// The same, for other threads.
    pub fn submissions(&self) -> Arc<AtomicU64> {
        self.submitted.clone()
    }

    /// Microseconds of the longest submission so far, for other threads.
    pub fn longest(&self) -> Arc<AtomicU64> {
        self.longest.clone()
    }

    /// Whether the GPU has a submission that is not done.
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The number of the newest submission that is done, as all before it are.
    pub fn done(&self) -> u64 {
        self.submitted() - self.in_flight.len() as u64
    }

    /// Looks what is done, without waiting. Memory is given back here.
    pub fn poll(&mut self) -> Result<()> {
        self.look(wgpu::PollType::Poll);
        self.retire();
        self.faults.check()
    }

    /// Waits for the oldest submission, no longer than `patience`.
    pub fn wait_for_oldest(&mut self, patience: Duration) -> Result<()> {
        if let Some(oldest) = self.in_flight.front() {
            let submission_index = Some(oldest.index.clone());
            self.look(wgpu::PollType::Wait { submission_index, timeout: Some(patience) });
        }
        self.retire();
        self.faults.check()
    }

    fn look(&self, how: wgpu::PollType) {
        if let Some(lost) = lost_by(|| self.device.poll(how).map(drop)) {
            self.faults.latch(lost);
        }
    }

    /// Submits, and waits until all is done.
    pub fn drain(&mut self) -> Result<()> {
        self.submit()?;
        while !self.in_flight.is_empty() {
            self.wait_for_oldest(Duration::from_millis(200))?;
        }
        Ok(())
    }

    fn retire(&mut self) {
        while let Some(done) = self.in_flight.front().and_then(|f| f.done.get().copied())
            && let Some(flight) = self.in_flight.pop_front()
        {
            let took = done.saturating_duration_since(flight.start.max(self.last_done));
            if let Some(note) = flight.note {
                note.worked("submission", Cost::default(), flight.start.max(self.last_done), took);
            }
            self.last_done = done;
            self.longest.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
            self.weights.adapt(&flight.kernels, took);
            self.budget.adapt(flight.work, flight.commands, took);
        }
    }
}

/// How the device was lost, as polling tells. wgpu panics where the driver says so, and whoever waits for what is read would
/// never hear of it.
fn lost_by(poll: impl FnOnce() -> std::result::Result<(), wgpu::PollError>) -> Option<Error> {
    let why = match catch_unwind(AssertUnwindSafe(poll)) {
        // The caller looks again.
        Ok(Ok(()) | Err(wgpu::PollError::Timeout)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => crate::panic::told(&*panic),
    };
    Some(Error::new(Code::DeviceLost, format!("the GPU was lost: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_it_is_polled_is_a_lost_device_and_a_timeout_is_none() {
        assert!(lost_by(|| Ok(())).is_none());
        assert!(lost_by(|| Err(wgpu::PollError::Timeout)).is_none());
        let lost = lost_by(|| panic!("Device lost")).expect("it is told");
        assert_eq!(lost.code, Code::DeviceLost);
        assert!(
            lost.message.contains("the GPU was lost: ") && lost.message.contains("Device lost"),
            "{lost:?}"
        );
    }
}
