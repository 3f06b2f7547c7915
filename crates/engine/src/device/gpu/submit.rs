//! Bounded submissions: commands are encoded into one list, submitted in portions of about 20 ms, and polled until
//! complete, so that they trigger no watchdog and the display stays responsive.

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

/// The most commands of a submission: one token of a model with 64 blocks.
const MAX_COMMANDS: u32 = 1024;
/// The most submissions that the GPU has queued.
const MAX_IN_FLIGHT: usize = 3;
/// The most launches that are queued or being recorded.
pub const MAX_LAUNCHES: usize = (MAX_IN_FLIGHT + 1) * MAX_COMMANDS as usize;

/// The work equivalent of one byte moved: kernels without arithmetic are bound by memory.
pub const WORK_PER_BYTE: u64 = 4;

pub struct Submitter {
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    // Declared before the encoder, so that it is dropped first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    commands: u32,
    work: u64,
    budget: Budget,
    weights: Weights,
    /// The kernels of the encoded work.
    kernels: Kernels,
    in_flight: VecDeque<Submission>,
    submitted: Arc<AtomicU64>,
    /// Microseconds of the longest submission so far.
    longest: Arc<AtomicU64>,
    last_done: Instant,
    timing: Timing,
    /// Whether the next submission must fail silently.
    #[cfg(test)]
    pub drops_next: bool,
}

/// Kernels by name, with their counted work.
type Kernels = SmallVec<[(&'static str, u64); 16]>;

struct Submission {
    kernels: Kernels,
    index: wgpu::SubmissionIndex,
    work: u64,
    commands: u32,
    start: Instant,
    done: Arc<OnceLock<Instant>>,
    note: Option<Note>,
}

impl Submitter {
    /// `watchdog` is the limit on a submission's duration, in milliseconds, before the system ends it.
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
            drops_next: false,
        }
    }

    /// The encoder for copies.
    pub fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()))
    }

    /// The pass for dispatches; consecutive dispatches share one.
    pub fn pass(&mut self) -> &mut wgpu::ComputePass<'static> {
        let encoder =
            self.encoder.get_or_insert_with(|| self.device.create_command_encoder(&Default::default()));
        self.pass.get_or_insert_with(|| {
            let timestamp_writes = self.timing.begin();
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            encoder.begin_compute_pass(&descriptor).forget_lifetime()
        })
    }

    /// Sets the trace entry that the following work is charged to.
    pub fn set_note(&mut self, note: Option<Note>) {
        if self.timing.set_note(note) {
            self.pass = None;
        }
    }

    /// Records that `groups` of `launch`, with the given work, were encoded.
    pub fn count_launch(&mut self, launch: &Launch, groups: u32, work: u64) {
        self.timing.add_launch(launch, groups);
        let name = launch.kernel.name;
        match self.kernels.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(work),
            None => self.kernels.push((name, work)),
        }
    }

    /// Returns a kernel's work, corrected by the measured duration of its submissions.
    pub fn correct_work(&self, kernel: &Kernel, work: u64) -> u64 {
        self.weights.correct_work(kernel.name, work)
    }

    /// Returns how many of `groups`, with `work` in total, one dispatch should have.
    pub fn choose_groups(&self, work: u64, groups: u32) -> u32 {
        self.budget.choose_groups(work, groups)
    }

    /// Counts an encoded command; returns whether to submit.
    pub fn count(&mut self, work: u64) -> bool {
        self.commands += 1;
        self.work = self.work.saturating_add(work);
        self.commands >= MAX_COMMANDS || self.budget.is_spent(self.work)
    }

    pub fn has_commands(&self) -> bool {
        self.encoder.is_some()
    }

    /// Submits the encoded work. Waits while the GPU has enough work queued.
    pub fn submit(&mut self) -> Result<()> {
        self.pass = None;
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        let times = self.timing.resolve(&mut encoder);
        let buffer = encoder.finish();
        #[cfg(test)]
        let buffer = self.drop_if_requested(buffer);
        while self.in_flight.len() >= MAX_IN_FLIGHT {
            self.wait_for_oldest(Duration::from_millis(200))?;
        }
        let done = Arc::new(OnceLock::new());
        let completed = done.clone();
        let index = self.queue.submit([buffer]);
        self.queue.on_submitted_work_done(move || {
            completed.set(Instant::now()).ok();
        });
        let start = Instant::now();
        if let Some(times) = times {
            self.timing.request(times, start);
        }
        self.in_flight.push_back(Submission {
            index,
            work: std::mem::take(&mut self.work),
            commands: std::mem::take(&mut self.commands),
            kernels: std::mem::take(&mut self.kernels),
            start,
            done,
            note: self.timing.submission_note(),
        });
        self.submitted.fetch_add(1, Ordering::Relaxed);
        self.poll()
    }

    /// Replaces `buffer` with an empty list if the test requests it: the effect of a failed submission on Metal.
    #[cfg(test)]
    fn drop_if_requested(&mut self, buffer: wgpu::CommandBuffer) -> wgpu::CommandBuffer {
        if !std::mem::take(&mut self.drops_next) {
            return buffer;
        }
        self.device.create_command_encoder(&Default::default()).finish()
    }

    /// Keeps the submitter busy until the test ends its work, regardless of the GPU's speed.
    #[cfg(test)]
    pub fn keep_busy(&mut self) -> Arc<OnceLock<Instant>> {
        let done = Arc::new(OnceLock::new());
        let index = self.queue.submit([]);
        let start = Instant::now();
        self.in_flight.push_back(Submission {
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

    /// The same number, for other threads.
    pub fn submissions(&self) -> Arc<AtomicU64> {
        self.submitted.clone()
    }

    /// Microseconds of the longest submission so far, for other threads.
    pub fn longest(&self) -> Arc<AtomicU64> {
        self.longest.clone()
    }

    /// Whether the GPU has an incomplete submission.
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The number of the newest complete submission; all earlier ones are complete, too.
    pub fn done(&self) -> u64 {
        self.submitted() - self.in_flight.len() as u64
    }

    /// Polls for completion without waiting. Frees memory.
    pub fn poll(&mut self) -> Result<()> {
        self.poll_device(wgpu::PollType::Poll);
        self.retire();
        self.faults.check()
    }

    /// Waits at most `patience` for the oldest submission.
    pub fn wait_for_oldest(&mut self, patience: Duration) -> Result<()> {
        if let Some(oldest) = self.in_flight.front() {
            let submission_index = Some(oldest.index.clone());
            self.poll_device(wgpu::PollType::Wait { submission_index, timeout: Some(patience) });
        }
        self.retire();
        self.faults.check()
    }

    fn poll_device(&self, how: wgpu::PollType) {
        if let Some(lost) = find_loss(|| self.device.poll(how).map(drop)) {
            self.faults.latch(lost);
        }
    }

    /// Submits, and waits until all work is complete.
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
                note.record_work("submission", Cost::default(), flight.start.max(self.last_done), took);
            }
            self.last_done = done;
            self.longest.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
            self.weights.adapt(&flight.kernels, took);
            self.budget.adapt(flight.work, flight.commands, took);
        }
    }
}

/// Returns the error if a poll shows that the device is lost. wgpu panics if the driver reports the loss; without this,
/// pending reads would never get a reply.
fn find_loss(poll: impl FnOnce() -> std::result::Result<(), wgpu::PollError>) -> Option<Error> {
    let why = match catch_unwind(AssertUnwindSafe(poll)) {
        // The caller polls again.
        Ok(Ok(()) | Err(wgpu::PollError::Timeout)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => crate::panic::describe(&*panic),
    };
    Some(Error::new(Code::DeviceLost, format!("the GPU was lost: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_poll_is_a_lost_device_but_a_timeout_is_not() {
        assert!(find_loss(|| Ok(())).is_none());
        assert!(find_loss(|| Err(wgpu::PollError::Timeout)).is_none());
        let lost = find_loss(|| panic!("Device lost")).expect("a lost device");
        assert_eq!(lost.code, Code::DeviceLost);
        assert!(
            lost.message.contains("the GPU was lost: ") && lost.message.contains("Device lost"),
            "{lost:?}"
        );
    }
}
