//! Timestamps around passes during a trace; then a pass has the launches of one operation.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kernel::Launch;
use crate::trace::{Cost, Note};

/// The most timed passes of a submission: as many as it has commands.
const MAX_PASSES: u32 = 1024;
const BYTES: u64 = MAX_PASSES as u64 * 2 * 8;

pub struct Timing {
    device: wgpu::Device,
    /// Nanoseconds per tick; `None` if the GPU has no timestamps.
    period: Option<f64>,
    set: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    note: Option<Note>,
    passes: Vec<TimedPass>,
    anchor: Arc<Mutex<Option<Anchor>>>,
}

/// A tick of the GPU's clock, and its host time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchor {
    tick: u64,
    when: Instant,
}

impl Anchor {
    /// Returns the anchor for a submission that was submitted at `submitted` and begins with `tick`. Keeps the known
    /// anchor unless it would place the begin before the submission: then its own submission was queued, or the counter
    /// (which may have few bits) wrapped.
    fn of(known: Option<Anchor>, tick: u64, submitted: Instant, period: f64) -> Anchor {
        let is_valid = |known: &Anchor| tick >= known.tick && known.time(tick, period) >= submitted;
        known.filter(is_valid).unwrap_or(Anchor { tick, when: submitted })
    }

    fn time(&self, tick: u64, period: f64) -> Instant {
        self.when + to_duration(tick.saturating_sub(self.tick), period)
    }
}

fn to_duration(ticks: u64, period: f64) -> Duration {
    Duration::from_nanos((ticks as f64 * period) as u64)
}

/// A timed pass.
struct TimedPass {
    note: Note,
    kernel: &'static str,
    cost: Cost,
}

/// The timestamps of a submission.
pub struct SubmissionTimes {
    buffer: wgpu::Buffer,
    passes: Vec<TimedPass>,
}

impl Timing {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let has = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        Timing {
            device: device.clone(),
            period: has.then(|| f64::from(queue.get_timestamp_period())),
            set: None,
            note: None,
            passes: Vec::new(),
            anchor: Arc::default(),
        }
    }

    /// Returns whether later launches belong to another trace entry.
    pub fn set_note(&mut self, note: Option<Note>) -> bool {
        let changed = self.note.as_ref().map(|n| n.mark) != note.as_ref().map(|n| n.mark);
        self.note = note;
        changed
    }

    /// Returns the trace entry of a whole submission, if passes cannot be timed.
    pub fn submission_note(&self) -> Option<Note> {
        self.note.clone().filter(|_| self.period.is_none())
    }

    /// Returns the timestamp writes for a new pass.
    pub fn begin(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let note = self.note.clone()?;
        self.period?;
        let at = self.passes.len() as u32;
        if at >= MAX_PASSES {
            return None;
        }
        self.passes.push(TimedPass { note, kernel: "", cost: Cost::default() });
        let (set, _) = self.set.get_or_insert_with(|| create_queries(&self.device));
        Some(wgpu::ComputePassTimestampWrites {
            query_set: set,
            beginning_of_pass_write_index: Some(2 * at),
            end_of_pass_write_index: Some(2 * at + 1),
        })
    }

    /// Adds `groups` of a launch to the open pass.
    pub fn add_launch(&mut self, launch: &Launch, groups: u32) {
        if self.note.is_some()
            && let Some(pass) = self.passes.last_mut()
        {
            pass.cost.add(Cost::of(launch).share(groups, launch.groups));
            pass.kernel = launch.kernel.name;
        }
    }

    /// Called before a submission: copies its timestamps to a read buffer.
    pub fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) -> Option<SubmissionTimes> {
        let passes = std::mem::take(&mut self.passes);
        let (set, resolved) = self.set.as_ref().filter(|_| !passes.is_empty())?;
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: BYTES,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let count = 2 * passes.len() as u32;
        encoder.resolve_query_set(set, 0..count, resolved, 0);
        encoder.copy_buffer_to_buffer(resolved, 0, &buffer, 0, u64::from(count) * 8);
        Some(SubmissionTimes { buffer, passes })
    }

    /// Called after the submission at `submitted`: requests the timestamps.
    pub fn request(&self, times: SubmissionTimes, submitted: Instant) {
        let (anchor, period) = (self.anchor.clone(), self.period.unwrap_or(1.0));
        let SubmissionTimes { buffer, passes } = times;
        let mapped = buffer.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |done| {
            // Unreadable timestamps are missing from the trace.
            let Some(view) = done.ok().and_then(|()| mapped.get_mapped_range(..).ok()) else { return };
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..passes.len() * 16]);
            let mut anchor = anchor.lock().unwrap_or_else(|e| e.into_inner());
            let known = *anchor;
            let anchor = anchor.insert(Anchor::of(known, ticks[0], submitted, period));
            for (timed, at) in passes.iter().zip(ticks.chunks_exact(2)) {
                let (start, took) = (anchor.time(at[0], period), at[1].saturating_sub(at[0]));
                timed.note.record_work(timed.kernel, timed.cost, start, to_duration(took, period));
            }
        });
    }
}

fn create_queries(device: &wgpu::Device) -> (wgpu::QuerySet, wgpu::Buffer) {
    let set = device.create_query_set(&wgpu::QuerySetDescriptor {
        label: None,
        ty: wgpu::QueryType::Timestamp,
        count: 2 * MAX_PASSES,
    });
    let resolved = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: BYTES,
        usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    (set, resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_submission_begins_before_it_was_submitted() {
        let (period, began) = (2.0, Instant::now());
        let at = |nanoseconds| began + Duration::from_nanos(nanoseconds);
        // Submitted at 100; began long after.
        let first = Anchor::of(None, 5_000, at(100), period);
        assert_eq!(first.time(5_050, period), at(200));
        // Submitted before its begin by the known anchor, which remains valid.
        assert_eq!(Anchor::of(Some(first), 5_100, at(250), period), first);
        // Submitted after that: the first submission had been queued.
        let later = Anchor::of(Some(first), 5_200, at(900), period);
        assert_eq!(later.time(5_200, period), at(900));
        assert!(later.time(5_200, period) > first.time(5_200, period));
        // A counter that wrapped.
        assert_eq!(Anchor::of(Some(later), 3, at(1_000), period).time(4, period), at(1_002));
    }
}
