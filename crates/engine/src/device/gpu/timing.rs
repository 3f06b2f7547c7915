//! Timestamps around passes, while a trace is on: a pass holds the launches of one operation then.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kernel::Launch;
use crate::trace::{Cost, Note};

/// Passes of a submission that are timed at most: as many as it has commands.
const PASSES: u32 = 1024;
const BYTES: u64 = PASSES as u64 * 2 * 8;

pub struct Timing {
    device: wgpu::Device,
    /// Nanoseconds of a tick; none where the GPU tells no time.
    period: Option<f64>,
    set: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    note: Option<Note>,
    passes: Vec<Timed>,
    anchor: Arc<Mutex<Option<Anchor>>>,
}

/// A tick of the GPU's clock, and when it was.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anchor {
    tick: u64,
    when: Instant,
}

impl Anchor {
    /// Where a submission that was handed over at `submitted` begins with `tick`. What is known is kept until it would
    /// have a submission begin before that: the first had to wait, or the counter, which may have few bits, began anew.
    fn of(known: Option<Anchor>, tick: u64, submitted: Instant, period: f64) -> Anchor {
        let holds = |known: &Anchor| tick >= known.tick && known.time(tick, period) >= submitted;
        known.filter(holds).unwrap_or(Anchor { tick, when: submitted })
    }

    fn time(&self, tick: u64, period: f64) -> Instant {
        self.when + nanoseconds(tick.saturating_sub(self.tick), period)
    }
}

fn nanoseconds(ticks: u64, period: f64) -> Duration {
    Duration::from_nanos((ticks as f64 * period) as u64)
}

/// A pass that is timed.
struct Timed {
    note: Note,
    kernel: &'static str,
    cost: Cost,
}

/// What a submission brings back.
pub struct Times {
    buffer: wgpu::Buffer,
    passes: Vec<Timed>,
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

    /// Returns whether launches are another's from now on.
    pub fn note(&mut self, note: Option<Note>) -> bool {
        let changed = self.note.as_ref().map(|n| n.mark) != note.as_ref().map(|n| n.mark);
        self.note = note;
        changed
    }

    /// Whose a submission as a whole is, where passes cannot be timed.
    pub fn untimed(&self) -> Option<Note> {
        self.note.clone().filter(|_| self.period.is_none())
    }

    /// For a pass that begins.
    pub fn begin(&mut self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        let note = self.note.clone()?;
        self.period?;
        let at = self.passes.len() as u32;
        if at >= PASSES {
            return None;
        }
        self.passes.push(Timed { note, kernel: "", cost: Cost::default() });
        let (set, _) = self.set.get_or_insert_with(|| queries(&self.device));
        Some(wgpu::ComputePassTimestampWrites {
            query_set: set,
            beginning_of_pass_write_index: Some(2 * at),
            end_of_pass_write_index: Some(2 * at + 1),
        })
    }

    /// Adds `groups` of a launch to the pass that is open.
    pub fn launched(&mut self, launch: &Launch, groups: u32) {
        if self.note.is_some()
            && let Some(pass) = self.passes.last_mut()
        {
            pass.cost.add(Cost::of(launch).part(groups, launch.groups));
            pass.kernel = launch.kernel.name;
        }
    }

    /// Before a submission: has its times brought to the host.
    pub fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) -> Option<Times> {
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
        Some(Times { buffer, passes })
    }

    /// After the submission, which was handed over at `submitted`.
    pub fn ask(&self, times: Times, submitted: Instant) {
        let (anchor, period) = (self.anchor.clone(), self.period.unwrap_or(1.0));
        let Times { buffer, passes } = times;
        let mapped = buffer.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |done| {
            // A trace goes without what cannot be read.
            let Some(view) = done.ok().and_then(|()| mapped.get_mapped_range(..).ok()) else { return };
            let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view[..passes.len() * 16]);
            let mut anchor = anchor.lock().unwrap_or_else(|e| e.into_inner());
            let known = *anchor;
            let anchor = anchor.insert(Anchor::of(known, ticks[0], submitted, period));
            for (timed, at) in passes.iter().zip(ticks.chunks_exact(2)) {
                let (start, took) = (anchor.time(at[0], period), at[1].saturating_sub(at[0]));
                timed.note.worked(timed.kernel, timed.cost, start, nanoseconds(took, period));
            }
        });
    }
}

fn queries(device: &wgpu::Device) -> (wgpu::QuerySet, wgpu::Buffer) {
    let set = device.create_query_set(&wgpu::QuerySetDescriptor {
        label: None,
        ty: wgpu::QueryType::Timestamp,
        count: 2 * PASSES,
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
    fn no_submission_begins_before_it_was_handed_over_and_none_before_the_one_before() {
        let (period, began) = (2.0, Instant::now());
        let at = |nanoseconds| began + Duration::from_nanos(nanoseconds);
        // Handed over at 100, and begun long after.
        let first = Anchor::of(None, 5_000, at(100), period);
        assert_eq!(first.time(5_050, period), at(200));
        // Handed over before it can have begun by what is known: that holds.
        assert_eq!(Anchor::of(Some(first), 5_100, at(250), period), first);
        // Handed over after: the first had waited.
        let moved = Anchor::of(Some(first), 5_200, at(900), period);
        assert_eq!(moved.time(5_200, period), at(900));
        assert!(moved.time(5_200, period) > first.time(5_200, period));
        // A counter that begins anew.
        assert_eq!(Anchor::of(Some(moved), 3, at(1_000), period).time(4, period), at(1_002));
    }
}
