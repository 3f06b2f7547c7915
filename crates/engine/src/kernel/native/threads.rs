//! The threads of the processor: a launch is cut into tasks, which the device's own thread and the workers take.
//!
//! A worker without work looks for some for `PATIENCE` before it sleeps. Launches follow one another within
//! microseconds, and waking a thread takes tens of them; and it does not yield meanwhile, since on a machine that
//! something else keeps busy whoever yields waits for a slice of it. A step of a small transformer, two cores of a
//! Xeon, with rayon's workers as they are, which yield, and made to spin as long: 20.7 and 17.4 ms at best, and beside
//! a process that takes half a core 56 and 28. These: 16.5 at best.
//!
//! Work that a worker has not begun when the others are done is taken back from it: nobody waits for a thread that
//! the system has not let run.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// How long a thread looks for what it waits for before it sleeps.
pub const PATIENCE: Duration = Duration::from_micros(100);
/// Looks between two at the clock.
const LOOKS: usize = 64;

/// States of a worker: nothing to do, something to do, at it, and asleep.
const IDLE: u32 = 0;
const POSTED: u32 = 1;
const RUNNING: u32 = 2;
const ASLEEP: u32 = 3;

type Work = dyn Fn(usize) + Sync;

thread_local! {
    /// The threads that the tasks of this one's launches go to; null for none.
    static CURRENT: Cell<*const Threads> = const { Cell::new(std::ptr::null()) };
}

/// A fixed number of threads, of which the one that made it is the first.
pub struct Threads {
    team: Arc<Team>,
    workers: Vec<JoinHandle<()>>,
    /// The thread that made it is the only one that waits for the others.
    _owned: PhantomData<*const ()>,
}

/// What the threads share.
struct Team {
    states: Box<[State]>,
    /// What is to be done, while any state says so.
    work: UnsafeCell<*const Work>,
    /// Whether the owner sleeps until a worker is done.
    joining: AtomicBool,
    stop: AtomicBool,
    owner: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: as below.
unsafe impl Send for Team {}
// SAFETY: the pointer is written while every worker is idle, and read by those that were posted since.
unsafe impl Sync for Team {}

/// A worker's, in a cache line of its own.
#[repr(align(64))]
struct State(AtomicU32);

impl Threads {
    /// `count` threads, of which the calling one is the first.
    ///
    /// # Errors
    /// The system's, where it starts no thread.
    pub fn new(count: usize) -> std::io::Result<Threads> {
        let team = Arc::new(Team {
            states: (1..count).map(|_| State(AtomicU32::new(IDLE))).collect(),
            work: UnsafeCell::new(std::ptr::null::<fn(usize)>() as *const Work),
            joining: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            owner: std::thread::current(),
            panic: Mutex::new(None),
        });
        let mut threads = Threads { team, workers: Vec::new(), _owned: PhantomData };
        for i in 0..count.saturating_sub(1) {
            let team = threads.team.clone();
            let worker = std::thread::Builder::new().name(format!("lowrank-cpu-{}", i + 1));
            threads.workers.push(worker.spawn(move || team.serve(i))?);
        }
        Ok(threads)
    }

    pub fn count(&self) -> usize {
        1 + self.workers.len()
    }

    /// Calls `body`, whose tasks these threads take.
    pub fn install<T>(&self, body: impl FnOnce() -> T) -> T {
        let _restored = Restored(CURRENT.replace(self));
        body()
    }

    /// Calls `work` on as many threads, each with its number, as far as they are free before all is done.
    fn run(&self, threads: usize, work: &(dyn Fn(usize) + Sync)) {
        let count = threads.min(self.count());
        // What it calls has no threads besides.
        let _restored = Restored(CURRENT.replace(std::ptr::null()));
        // SAFETY: every worker is idle, and none calls it once this returns: it takes back or waits for what it posted.
        unsafe { *self.team.work.get() = std::mem::transmute::<&(dyn Fn(usize) + Sync), *const Work>(work) };
        let (states, workers) = (&self.team.states[..count - 1], &self.workers[..count - 1]);
        for (state, worker) in states.iter().zip(workers) {
            if state.0.swap(POSTED, AcqRel) == ASLEEP {
                worker.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        for state in states {
            self.team.join(&state.0);
        }
        let theirs = self.team.panic.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.team.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            worker.join().ok();
        }
    }
}

/// Puts back what was current.
struct Restored(*const Threads);

impl Drop for Restored {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Team {
    /// A worker's life.
    fn serve(&self, i: usize) {
        let state = &self.states[i].0;
        while self.wait(state) {
            // SAFETY: it was posted, so the pointer is of a call of `run` that has not returned.
            let work = unsafe { &**self.work.get() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(i + 1))) {
                self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
            }
            state.store(IDLE, SeqCst);
            if self.joining.load(SeqCst) {
                self.owner.unpark();
            }
        }
    }

    /// Waits until a worker's state is `RUNNING`; false where there will be no more work.
    fn wait(&self, state: &AtomicU32) -> bool {
        let mut since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let posted = state.load(Relaxed) == POSTED;
                if posted && state.compare_exchange(POSTED, RUNNING, Acquire, Relaxed).is_ok() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.stop.load(SeqCst) {
                return false;
            }
            if since.elapsed() > PATIENCE && state.compare_exchange(IDLE, ASLEEP, SeqCst, Relaxed).is_ok() {
                while state.load(Acquire) == ASLEEP {
                    if self.stop.load(SeqCst) {
                        return false;
                    }
                    std::thread::park();
                }
                since = Instant::now();
            }
        }
    }

    /// Takes a worker's work back, or waits until it is done with it, and may sleep already.
    fn join(&self, state: &AtomicU32) {
        if state.compare_exchange(POSTED, IDLE, Relaxed, Relaxed).is_ok() {
            return;
        }
        let since = Instant::now();
        while since.elapsed() <= PATIENCE {
            for _ in 0..LOOKS {
                if state.load(Acquire) != RUNNING {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.joining.store(true, SeqCst);
        while state.load(SeqCst) == RUNNING {
            std::thread::park();
        }
        self.joining.store(false, SeqCst);
    }
}

/// How many threads take the tasks of this one's launches.
pub fn count() -> usize {
    // SAFETY: it outlives what is called while it is installed.
    unsafe { CURRENT.get().as_ref() }.map_or(1, Threads::count)
}

/// Calls `task` for 0, 1, … below `tasks` on the current threads. Each thread has a share, the same in every launch of
/// as many, so that what it wrote is in its own cache when the next launch reads it; a thread that is done takes
/// what is left of the others'. Short launches spend nothing on splitting a range, pushing and stealing.
/// One counter for all, by which any thread takes any task: 1 to 3% more for a step of SmolLM2 with 512 tokens,
/// 1 to 6% for one of the small model.
pub fn each_task(threads: usize, tasks: usize, task: impl Fn(usize) + Sync) {
    let threads = threads.min(tasks).min(count());
    // SAFETY: it outlives what is called while it is installed.
    let current = unsafe { CURRENT.get().as_ref() };
    let Some(current) = current.filter(|_| threads > 1) else {
        return (0..tasks).for_each(task);
    };
    let share = |thread: usize| thread * tasks / threads;
    let next: SmallVec<[Share; 8]> =
        (0..threads).map(|thread| Share(AtomicUsize::new(share(thread)))).collect();
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
}

/// The next task of a thread's share, in a cache line of its own.
#[repr(align(64))]
struct Share(AtomicUsize);

/// Calls `task` with the parts of 0..`rows` of `grain` rows each, at least one.
pub fn each_range(rows: usize, grain: usize, task: impl Fn(Range<usize>) + Sync) {
    let grain = grain.max(1);
    each_task(count(), rows.div_ceil(grain), |i| task(i * grain..((i + 1) * grain).min(rows)));
}

/// Calls `task` for each of `rows`, `grain` of them in one task.
pub fn each_row(rows: usize, grain: usize, task: impl Fn(usize) + Sync) {
    each_range(rows, grain, |rows| rows.for_each(&task));
}

/// Calls `task` with where each part of `y` of `size` elements starts, and the part.
pub fn each_chunk<T: Send>(y: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (length, y) = (y.len(), Shared::new(y));
    // SAFETY: the ranges have no element in common.
    each_range(length, size, |range| task(range.start, unsafe { y.slice(range.start, range.len()) }));
}

/// What `task` gives for 0, 1, … below `tasks`.
pub fn map_tasks<R: Send + Default + Clone>(tasks: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let mut results = vec![R::default(); tasks];
    each_chunk(&mut results, 1, |i, result| result[0] = task(i));
    results
}

/// A slice that tasks write disjoint parts of.
pub struct Shared<T>(*mut T, usize);

// SAFETY: tasks take parts of it that do not overlap, as if each had been sent its own.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Shared(slice.as_mut_ptr(), slice.len())
    }

    /// # Safety
    /// No two tasks take overlapping parts.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, count: usize) -> &mut [T] {
        assert!(start + count <= self.1);
        // SAFETY: it lies within the slice, and is nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), count) }
    }

    /// Where a part starts of which a task takes some elements within `extent`, and others the rest.
    pub fn at(&self, start: usize, extent: usize) -> *mut T {
        assert!(start + extent <= self.1);
        self.0.wrapping_add(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_run_once_whatever_the_threads() {
        for count in [1, 2, 3, 8] {
            let threads = Threads::new(count).unwrap();
            for tasks in (0..70).chain([1000]) {
                for asked in [1, 2, count, 100] {
                    let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    threads.install(|| {
                        each_task(asked, tasks, |i| {
                            runs[i].fetch_add(1, Relaxed);
                        })
                    });
                    assert!(runs.iter().all(|n| n.load(Relaxed) == 1), "{count} threads, {tasks} tasks");
                }
            }
        }
    }

    #[test]
    fn workers_that_sleep_wake() {
        let threads = Threads::new(3).unwrap();
        for pause in [0, 1, 5] {
            std::thread::sleep(Duration::from_millis(pause));
            // Each of three tasks waits for the other two.
            let here = AtomicUsize::new(0);
            threads.install(|| {
                each_task(3, 3, |_| {
                    here.fetch_add(1, SeqCst);
                    while here.load(SeqCst) < 3 {
                        std::thread::yield_now();
                    }
                })
            });
        }
    }

    #[test]
    fn who_is_done_waits_for_what_others_have_begun() {
        let threads = Threads::new(2).unwrap();
        let done = AtomicUsize::new(0);
        threads.install(|| {
            each_task(2, 2, |_| {
                // One of them is the owner's, or both are; the other outlasts its patience.
                if std::thread::current().name() == Some("lowrank-cpu-1") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                done.fetch_add(1, SeqCst);
            })
        });
        assert_eq!(done.load(SeqCst), 2);
    }

    #[test]
    fn a_task_of_a_task_has_no_threads_of_its_own() {
        let threads = Threads::new(4).unwrap();
        let sum = AtomicUsize::new(0);
        threads.install(|| {
            assert_eq!(super::count(), 4);
            each_task(4, 8, |i| {
                assert_eq!(super::count(), 1);
                each_task(4, 10, |j| {
                    sum.fetch_add(10 * i + j, Relaxed);
                });
            });
            assert_eq!(super::count(), 4);
        });
        assert_eq!(super::count(), 1);
        assert_eq!(sum.load(Relaxed), (0..80).sum::<usize>());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_ends_no_thread() {
        let threads = Threads::new(3).unwrap();
        for at in 0..20 {
            let message = catch_unwind(AssertUnwindSafe(|| {
                threads.install(|| {
                    each_task(3, 20, |i| {
                        std::thread::sleep(Duration::from_micros(50));
                        assert!(i != at, "task {i}");
                    })
                })
            }));
            let message = message.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(*message, format!("task {at}"));
        }
        assert_eq!(threads.install(|| map_tasks(5, |i| i * i)), [0, 1, 4, 9, 16]);
    }

    #[test]
    fn chunks_and_ranges_cover_everything_once() {
        let threads = Threads::new(2).unwrap();
        threads.install(|| {
            let mut y = vec![0; 1001];
            each_chunk(&mut y, 10, |at, y| y.iter_mut().enumerate().for_each(|(i, y)| *y += at + i));
            assert!(y.iter().enumerate().all(|(i, y)| i == *y));
            let rows: Vec<AtomicUsize> = (0..77).map(|_| AtomicUsize::new(0)).collect();
            each_row(77, 0, |r| {
                rows[r].fetch_add(1, Relaxed);
            });
            each_row(77, 8, |r| {
                rows[r].fetch_add(1, Relaxed);
            });
            assert!(rows.iter().all(|n| n.load(Relaxed) == 2));
        });
    }
}
