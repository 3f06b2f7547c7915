//! The CPU's threads: a launch is divided into tasks, which the device's own thread and the workers run.
//!
//! An idle worker polls for `PATIENCE` before it sleeps, since launches follow one another within microseconds and
//! waking a thread takes tens of them. It does not yield meanwhile: on a busy machine a thread that yields loses its
//! time slice. docs/design/measurements.md compares it with rayon's workers.
//!
//! Work that a worker has not begun when the others are done is taken back, so that no thread waits for one that the
//! system has not scheduled.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// The time a thread polls before it sleeps.
pub const PATIENCE: Duration = Duration::from_micros(100);
/// Polls between clock reads.
const POLLS: usize = 64;

/// States of a worker: idle, posted, running, and asleep.
const IDLE: u32 = 0;
const POSTED: u32 = 1;
const RUNNING: u32 = 2;
const ASLEEP: u32 = 3;

type Work = dyn Fn(usize) + Sync;

thread_local! {
    /// The threads for the tasks of this thread's launches; null if there are none.
    static CURRENT: Cell<*const Threads> = const { Cell::new(std::ptr::null()) };
}

/// A fixed number of threads; the thread that created it is the first.
pub struct Threads {
    team: Arc<Team>,
    workers: Vec<JoinHandle<()>>,
    /// The number of threads that take tasks.
    limit: Cell<usize>,
    /// Only the thread that created it waits for the others.
    _owned: PhantomData<*const ()>,
}

/// The state that the threads share.
struct Team {
    states: Box<[State]>,
    /// The current work, while any worker's state is posted or running.
    work: UnsafeCell<*const Work>,
    /// Whether the owner sleeps until a worker is done.
    joining: AtomicBool,
    stop: AtomicBool,
    owner: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: as below.
unsafe impl Send for Team {}
// SAFETY: the pointer is written while every worker is idle, and read by workers that were posted afterwards.
unsafe impl Sync for Team {}

/// A worker's state, in a separate cache line.
#[repr(align(64))]
struct State(AtomicU32);

impl Threads {
    /// Starts `count` − 1 threads; the calling thread is the first.
    ///
    /// # Errors
    /// The system's error, if it cannot start a thread.
    pub fn new(count: usize) -> std::io::Result<Threads> {
        Threads::new_named(count, "lowrank-cpu", || {})
    }

    /// `new`, with workers that are called `name` and a number. Each calls `begin` first.
    pub fn new_named(count: usize, name: &str, begin: fn()) -> std::io::Result<Threads> {
        let team = Arc::new(Team {
            states: (1..count).map(|_| State(AtomicU32::new(IDLE))).collect(),
            work: UnsafeCell::new(std::ptr::null::<fn(usize)>() as *const Work),
            joining: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            owner: std::thread::current(),
            panic: Mutex::new(None),
        });
        let mut threads = Threads { team, workers: Vec::new(), limit: Cell::new(count), _owned: PhantomData };
        for i in 0..count.saturating_sub(1) {
            let team = threads.team.clone();
            let worker = std::thread::Builder::new().name(format!("{name}-{}", i + 1));
            threads.workers.push(worker.spawn(move || {
                begin();
                team.serve(i);
            })?);
        }
        Ok(threads)
    }

    /// The number of threads that take tasks.
    pub fn count(&self) -> usize {
        self.limit.get().min(self.all())
    }

    /// The total number of threads.
    pub fn all(&self) -> usize {
        1 + self.workers.len()
    }

    /// Limits later launches to `count` threads, the owner first.
    pub fn limit(&self, count: usize) {
        self.limit.set(count.max(1));
    }

    /// Calls `body` with these threads as the current ones.
    pub fn install<T>(&self, body: impl FnOnce() -> T) -> T {
        let _restored = RestoreThreads(CURRENT.replace(self));
        body()
    }

    /// Calls `work` with a thread's number on up to `threads` threads; a thread that is busy until the end is left out.
    pub(crate) fn run(&self, threads: usize, work: &(dyn Fn(usize) + Sync)) {
        let count = threads.min(self.count());
        // Nested launches run on the calling thread only.
        let _restored = RestoreThreads(CURRENT.replace(std::ptr::null()));
        // SAFETY: every worker is idle, and none uses the pointer after this returns: posted work is taken back or
        // awaited.
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

/// Restores the current threads.
struct RestoreThreads(*const Threads);

impl Drop for RestoreThreads {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Team {
    /// A worker's main loop.
    fn serve(&self, i: usize) {
        let state = &self.states[i].0;
        while self.wait(state) {
            // SAFETY: it was posted, so the pointer is from a call of `run` that has not returned.
            let work = unsafe { &**self.work.get() };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(i + 1))) {
                self.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
            }
            // A swap, as in `join`: if a worker ends while the owner goes to sleep, one of them sees the other's write.
            // Stores would be enough, but an emulator of ARM on x86 reorders a store-release with the following load.
            state.swap(IDLE, SeqCst);
            if self.joining.load(SeqCst) {
                self.owner.unpark();
            }
        }
    }

    /// Waits until a worker's state is `RUNNING`; false if the threads are shutting down.
    fn wait(&self, state: &AtomicU32) -> bool {
        let mut since = Instant::now();
        loop {
            for _ in 0..POLLS {
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

    /// Takes a worker's work back, or waits until it is done; the worker may already be asleep.
    fn join(&self, state: &AtomicU32) {
        if state.compare_exchange(POSTED, IDLE, Relaxed, Relaxed).is_ok() {
            return;
        }
        let since = Instant::now();
        while since.elapsed() <= PATIENCE {
            for _ in 0..POLLS {
                if state.load(Acquire) != RUNNING {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.joining.swap(true, SeqCst);
        while state.load(SeqCst) == RUNNING {
            std::thread::park();
        }
        self.joining.store(false, SeqCst);
    }
}

/// The number of threads for the tasks of this thread's launches.
pub fn count() -> usize {
    with_current(|threads| threads.map_or(1, Threads::count))
}

/// Calls `body` with the current threads.
pub(crate) fn with_current<T>(body: impl FnOnce(Option<&Threads>) -> T) -> T {
    // SAFETY: they exist as long as they are installed.
    body(unsafe { CURRENT.get().as_ref() })
}
