//! What a run's time went into: every operation on the host, every launch on the device.
//!
//! While a context traces, what it records is marked with the operation that records it, and the
//! device times what it runs under such a mark. While it does not, nothing is marked or timed.
//! Events are kept up to a limit; totals by operation go on.

mod file;
mod roof;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub use roof::{MEMORY, PRODUCT, Roof};

use crate::kernel::{Access, Launch};

/// Events that are kept: some 50 MB of memory, and 100 of the file.
const EVENTS: usize = 500_000;

/// What an operation was run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    Forward,
    /// Again, since a checkpoint had let go of what it made.
    Replay,
    Backward,
    /// An optimizer's.
    Update,
    /// What no operation recorded: uploads, for the most part.
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

/// An operation in one of its passes: what time is added up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    pub operation: &'static str,
    pub pass: Pass,
}

const OUTSIDE: Mark = Mark { operation: "outside of operations", pass: Pass::Other };

/// Which operation recorded the commands that follow, and where to tell what they took.
#[derive(Clone)]
pub struct Note {
    pub trace: Arc<Trace>,
    pub mark: Mark,
}

/// What a command moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub read: u64,
    pub written: u64,
    pub flops: u64,
}

impl Cost {
    /// The bytes of a launch's bindings, and the arithmetic that its plan counts.
    pub fn of(launch: &Launch) -> Cost {
        let mut cost = Cost { flops: launch.work, ..Cost::default() };
        for (range, (_, access)) in launch.bindings.iter().zip(launch.kernel.bindings) {
            cost.read += if *access == Access::Write { 0 } else { range.bytes };
            cost.written += if *access == Access::Read { 0 } else { range.bytes };
        }
        // Of a table that rows are looked up in, no more is touched than what they come to.
        if matches!(launch.kernel.name, "take" | "gather") {
            cost.read = cost.read.min(2 * cost.written);
        }
        cost
    }

    /// What `part` of `whole` equal parts cost.
    pub fn part(self, part: u32, whole: u32) -> Cost {
        let of = |n: u64| (u128::from(n) * u128::from(part) / u128::from(whole)) as u64;
        Cost { read: of(self.read), written: of(self.written), flops: of(self.flops) }
    }

    pub fn add(&mut self, other: Cost) {
        self.read += other.read;
        self.written += other.written;
        self.flops += other.flops;
    }
}

/// Where an event took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// Recording, on the thread that calls operations.
    Host,
    Device,
}

#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub track: Track,
    pub mark: Mark,
    /// The kernel of a launch; empty on the host.
    pub kernel: &'static str,
    /// Since the trace began.
    pub start: Duration,
    pub took: Duration,
    pub cost: Cost,
}

/// What an operation came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    /// Times that it was recorded.
    pub calls: u64,
    pub host: Duration,
    pub device: Duration,
    pub cost: Cost,
    /// Seconds that its launches would have taken at the roofline.
    pub attainable: f64,
}

/// What is collected, by the host's thread and the device's.
pub struct Trace {
    began: Instant,
    limit: usize,
    collected: Mutex<Collected>,
}

#[derive(Default)]
struct Collected {
    events: Vec<Event>,
    left_out: u64,
    totals: HashMap<Mark, Total>,
    roof: Roof,
}

impl Default for Trace {
    fn default() -> Self {
        Trace::with_limit(EVENTS)
    }
}

impl Trace {
    fn with_limit(limit: usize) -> Trace {
        Trace { began: Instant::now(), limit, collected: Mutex::default() }
    }

    /// What the probe found, where it ran under this trace.
    pub fn roof(&self) -> Roof {
        self.collected().roof
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn add(&self, mut event: Event, start: Instant) {
        event.start = start.saturating_duration_since(self.began);
        let mut collected = self.collected();
        if !collected.roof.learn(&event) {
            // The probe, which comes first, has run.
            let attainable = collected.roof.seconds(&event.cost);
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
            collected.left_out += 1;
        }
    }

    /// Totals by operation and pass, longest on the device first; without the probe.
    pub fn totals(&self) -> Vec<(Mark, Total)> {
        let mut totals: Vec<_> = self.collected().totals.iter().map(|(m, t)| (*m, *t)).collect();
        totals.sort_by_key(|(mark, total)| (std::cmp::Reverse(total.device), *mark));
        totals
    }

    /// Events that came after the limit.
    pub fn left_out(&self) -> u64 {
        self.collected().left_out
    }

    /// What was kept, in order of its start.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.collected().events.clone();
        events.sort_by_key(|e| (e.track, e.start));
        events
    }
}

impl Note {
    /// Tells that the device worked on this from `start` for `took`.
    pub fn worked(&self, kernel: &'static str, cost: Cost, start: Instant, took: Duration) {
        let (mark, track) = (self.mark, Track::Device);
        self.trace.add(Event { track, mark, kernel, start: Duration::ZERO, took, cost }, start);
    }
}

/// A command at which the device works, which is told when this goes.
pub struct Working {
    note: Note,
    kernel: &'static str,
    cost: Cost,
    start: Instant,
}

impl Note {
    /// Starts the clock of a command.
    pub fn working(&self, kernel: &'static str, cost: Cost) -> Working {
        Working { note: self.clone(), kernel, cost, start: Instant::now() }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.note.worked(self.kernel, self.cost, self.start, self.start.elapsed());
    }
}

/// A context's side: whether it traces, and which operation is being recorded.
#[derive(Default)]
pub struct Tracer(RefCell<Option<Tracing>>);

struct Tracing {
    trace: Arc<Trace>,
    inside: Option<Mark>,
}

/// An operation that has begun.
pub struct Entered {
    note: Note,
    start: Instant,
}

impl Entered {
    pub fn note(&self) -> Note {
        self.note.clone()
    }
}

impl Tracer {
    pub fn set(&self, trace: Option<Arc<Trace>>) {
        *self.0.borrow_mut() = trace.map(|trace| Tracing { trace, inside: None });
    }

    /// The mark that commands are under just now.
    pub fn note(&self) -> Option<Note> {
        let tracing = self.0.borrow();
        tracing.as_ref().map(|t| Note { trace: t.trace.clone(), mark: t.inside.unwrap_or(OUTSIDE) })
    }

    /// Begins an operation; `None` where nothing traces or one has begun already, whose part this is.
    pub fn enter(&self, operation: &'static str, pass: Pass) -> Option<Entered> {
        let mut tracing = self.0.borrow_mut();
        let tracing = tracing.as_mut().filter(|t| t.inside.is_none())?;
        let mark = Mark { operation, pass };
        tracing.inside = Some(mark);
        Some(Entered { note: Note { trace: tracing.trace.clone(), mark }, start: Instant::now() })
    }

    pub fn leave(&self, entered: Entered) {
        if let Some(tracing) = self.0.borrow_mut().as_mut() {
            tracing.inside = None;
        }
        let event = Event {
            track: Track::Host,
            mark: entered.note.mark,
            kernel: "",
            start: Duration::ZERO,
            took: entered.start.elapsed(),
            cost: Cost::default(),
        };
        entered.note.trace.add(event, entered.start);
    }
}
