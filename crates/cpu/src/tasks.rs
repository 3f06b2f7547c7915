//! The tasks of a launch: numbers, ranges, rows or chunks, each run once on one of the current threads.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use crate::threads::{count, with_current};

/// Elements per task for a single pass: enough that the cost of starting the task is negligible.
pub const GRAIN: usize = 16 * 1024;

/// Calls `task` for 0, 1, … below `tasks` on the current threads. Each thread has a fixed share, so that data it wrote
/// is in its own cache when the next launch reads it; a thread that is done steals from the others.
pub fn each_task(threads: usize, tasks: usize, task: impl Fn(usize) + Sync) {
    let threads = threads.min(tasks).min(count());
    let share = |thread: usize| thread * tasks / threads;
    with_current(|current| {
        let Some(current) = current.filter(|_| threads > 1) else {
            return (0..tasks).for_each(task);
        };
        let next: SmallVec<[TaskCounter; 8]> =
            (0..threads).map(|thread| TaskCounter(AtomicUsize::new(share(thread)))).collect();
        current.run(threads, &|own| {
            for thread in (own..own + threads).map(|thread| thread % threads) {
                let end = share(thread + 1);
                loop {
                    let i = next[thread].0.fetch_add(1, Relaxed);
                    if i >= end {
                        break;
                    }
                    task(i);
                }
            }
        });
    });
}

/// The next task of a thread's share, in a separate cache line.
#[repr(align(64))]
struct TaskCounter(AtomicUsize);

/// Calls `task` with consecutive ranges of 0..`rows`, `grain` rows each, at least one.
pub fn each_range(rows: usize, grain: usize, task: impl Fn(Range<usize>) + Sync) {
    let grain = grain.max(1);
    each_task(count(), rows.div_ceil(grain), |i| task(i * grain..((i + 1) * grain).min(rows)));
}

/// Calls `task` for each of `rows`, `grain` rows per task.
pub fn each_row(rows: usize, grain: usize, task: impl Fn(usize) + Sync) {
    each_range(rows, grain, |rows| rows.for_each(&task));
}

/// Calls `task` with the start of each part of `y` of `size` elements, and the part.
pub fn each_chunk<T: Send>(y: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (length, y) = (y.len(), Shared::new(y));
    // SAFETY: the ranges are disjoint.
    each_range(length, size, |range| task(range.start, unsafe { y.slice(range.start, range.len()) }));
}

/// The results of `task` for 0, 1, … below `tasks`.
pub fn map_tasks<R: Send + Default + Clone>(tasks: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut results = vec![R::default(); tasks];
    each_chunk(&mut results, 1, |i, result| result[0] = task(i));
    results
}

/// A slice whose disjoint parts are written by several tasks.
pub struct Shared<T>(*mut T, usize);

// SAFETY: tasks take disjoint parts, as if each part had been sent to its task.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Shared(slice.as_mut_ptr(), slice.len())
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// No two tasks take overlapping parts.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, count: usize) -> &mut [T] {
        assert!(start + count <= self.1);
        // SAFETY: it is within the slice, and no other task has it.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), count) }
    }

    /// The start of a part whose `extent` several tasks write disjoint elements of.
    pub fn at(&self, start: usize, extent: usize) -> *mut T {
        assert!(start + extent <= self.1);
        self.0.wrapping_add(start)
    }
}
