//! Traces: the time of every operation on the host and of every launch on the device.
//!
//! While a context traces, its commands are marked with the operation that records them, and the device times marked
//! commands. Otherwise nothing is marked or timed. Events are kept up to a limit; totals by operation continue.

mod file;
mod roof;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub use roof::{MEMORY, PRODUCT, PeakRates};

use crate::kernel::{Access, Launch};

/// Most events that are kept: about 50 MB of memory, and 100 MB in the file.
const MAX_EVENTS: usize = 500_000;

/// The pass that an operation ran in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    Forward,
    /// The replay of a checkpointed region.
    Replay,
    Backward,
    /// An optimizer's update.
    Update,
    /// Commands outside of operations, mostly uploads.
    Other,
}

impl Pass {
    pub fn as_str(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Replay => "replay",
            Pass::Backward => "backward",
            Pass::Update => "update",
            Pass::Other => "other",
        }
    }
}

/// An operation in one of its passes: the key of totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationPass {
    pub operation: &'static str,
    pub pass: Pass,
}

const OUTSIDE: OperationPass = OperationPass { operation: "outside of operations", pass: Pass::Other };

/// The operation of the following commands, and the trace that collects their times.
#[derive(Clone)]
pub struct Note {
    pub trace: Arc<Trace>,
    pub mark: OperationPass,
}

/// The bytes and the arithmetic of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub read: u64,
    pub written: u64,
    pub flops: u64,
}

impl Cost {
    /// The bytes of a launch's bindings, and the arithmetic that its plan states.
    pub fn of(launch: &Launch) -> Cost {
        let mut cost = Cost { flops: launch.work, ..Cost::default() };
        for (range, (_, access)) in launch.bindings.iter().zip(launch.kernel.bindings) {
            cost.read += if *access == Access::Write { 0 } else { range.bytes };
            cost.written += if *access == Access::Read { 0 } else { range.bytes };
        }
        // A lookup touches only as many bytes of its table as it returns.
        if matches!(launch.kernel.name, "take" | "gather") {
            cost.read = cost.read.min(2 * cost.written);
        }
        cost
    }

    /// The cost of `part` of `whole` equal parts.
    pub fn share(self, part: u32, whole: u32) -> Cost {
        let scale = |n: u64| (u128::from(n) * u128::from(part) / u128::from(whole)) as u64;
        Cost { read: scale(self.read), written: scale(self.written), flops: scale(self.flops) }
    }

    pub fn add(&mut self, other: Cost) {
        self.read += other.read;
        self.written += other.written;
        self.flops += other.flops;
    }
}

/// The track of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// Recording, on the thread that calls operations.
    Host,
    Device,
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub track: Track,
    pub mark: OperationPass,
    /// The kernel of a launch; empty on the host.
    pub kernel: &'static str,
    /// Relative to the start of the trace.
    pub start: Duration,
    pub took: Duration,
    pub cost: Cost,
}

/// The totals of an operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    /// The number of times that it was recorded.
    pub calls: u64,
    pub host: Duration,
    pub device: Duration,
    pub cost: Cost,
    /// The time of its launches at the roofline, in seconds.
    pub attainable: f64,
}

/// A trace, collected by the host's and the device's threads.
pub struct Trace {
    began: Instant,
    limit: usize,
    collected: Mutex<TraceRecords>,
}

#[derive(Default)]
struct TraceRecords {
    events: Vec<Event>,
    dropped_events: u64,
    totals: HashMap<OperationPass, Total>,
    roof: PeakRates,
}

impl Default for Trace {
    fn default() -> Self {
        Trace::with_limit(MAX_EVENTS)
    }
}

impl Trace {
    fn with_limit(limit: usize) -> Trace {
        Trace { began: Instant::now(), limit, collected: Mutex::default() }
    }

    /// The result of the probe, if it ran in this trace.
    pub fn roof(&self) -> PeakRates {
        self.lock_collected().roof
    }

    fn lock_collected(&self) -> MutexGuard<'_, TraceRecords> {
        self.collected.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn add(&self, mut event: Event, start: Instant) {
        event.start = start.saturating_duration_since(self.began);
        let mut collected = self.lock_collected();
        if !collected.roof.learn(&event) {
            // The probe, which comes first, has run.
            let attainable = collected.roof.estimate_seconds(&event.cost);
            let total = collected.totals.entry(event.mark).or_default();
            match event.track {
                Track::Host => {
                    total.calls += 1;
                    total.host += event.took;
                }
                Track::Device => {
                    total.device += event.took;
                    total.cost.add(event.cost);
                    total.attainable += attainable;
                }
            }
        }
        if collected.events.len() < self.limit {
            collected.events.push(event);
        } else {
            collected.dropped_events += 1;
        }
    }

    /// Totals by operation and pass, longest on the device first; without the probe.
    pub fn totals(&self) -> Vec<(OperationPass, Total)> {
        let mut totals: Vec<_> = self.lock_collected().totals.iter().map(|(m, t)| (*m, *t)).collect();
        totals.sort_by_key(|(mark, total)| (std::cmp::Reverse(total.device), *mark));
        totals
    }

    /// Events after the limit.
    pub fn dropped_events(&self) -> u64 {
        self.lock_collected().dropped_events
    }

    /// The kept events, ordered by start.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.lock_collected().events.clone();
        events.sort_by_key(|e| (e.track, e.start));
        events
    }
}

impl Note {
    /// Records that the device worked on a kernel from `start` for `took`.
    pub fn record_work(&self, kernel: &'static str, cost: Cost, start: Instant, took: Duration) {
        let (mark, track) = (self.mark, Track::Device);
        self.trace.add(Event { track, mark, kernel, start: Duration::ZERO, took, cost }, start);
    }
}

/// A running command of the device; recorded when this is dropped.
pub struct RunningCommand {
    note: Note,
    kernel: &'static str,
    cost: Cost,
    start: Instant,
}

impl Note {
    /// Starts the clock of a command.
    pub fn start_command(&self, kernel: &'static str, cost: Cost) -> RunningCommand {
        RunningCommand { note: self.clone(), kernel, cost, start: Instant::now() }
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        self.note.record_work(self.kernel, self.cost, self.start, self.start.elapsed());
    }
}

/// A context's tracing state: the trace, and the current operation.
#[derive(Default)]
pub struct Tracer(RefCell<Option<Tracing>>);

struct Tracing {
    trace: Arc<Trace>,
    inside: Option<OperationPass>,
}

/// An operation that has begun.
pub struct BegunOperation {
    note: Note,
    start: Instant,
}

impl BegunOperation {
    pub fn note(&self) -> Note {
        self.note.clone()
    }
}

impl Tracer {
    pub fn set(&self, trace: Option<Arc<Trace>>) {
        *self.0.borrow_mut() = trace.map(|trace| Tracing { trace, inside: None });
    }

    /// The note for commands recorded now.
    pub fn note(&self) -> Option<Note> {
        let tracing = self.0.borrow();
        tracing.as_ref().map(|t| Note { trace: t.trace.clone(), mark: t.inside.unwrap_or(OUTSIDE) })
    }

    /// Begins an operation; `None` if nothing traces, or if this is part of an operation that has begun.
    pub fn begin(&self, operation: &'static str, pass: Pass) -> Option<BegunOperation> {
        let mut tracing = self.0.borrow_mut();
        let tracing = tracing.as_mut().filter(|t| t.inside.is_none())?;
        let mark = OperationPass { operation, pass };
        tracing.inside = Some(mark);
        Some(BegunOperation { note: Note { trace: tracing.trace.clone(), mark }, start: Instant::now() })
    }

    pub fn end(&self, begun: BegunOperation) {
        if let Some(tracing) = self.0.borrow_mut().as_mut() {
            tracing.inside = None;
        }
        let event = Event {
            track: Track::Host,
            mark: begun.note.mark,
            kernel: "",
            start: Duration::ZERO,
            took: begun.start.elapsed(),
            cost: Cost::default(),
        };
        begun.note.trace.add(event, begun.start);
    }
}
