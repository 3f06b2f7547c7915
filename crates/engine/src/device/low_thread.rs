//! A low-priority thread that runs calls for another thread, which waits for them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::cpu::system::lower_priority;

type Job = Box<dyn FnOnce() + Send>;

/// A job, and the channel that reports its end.
type QueuedJob = (Job, Sender<()>);

/// Starts with its first call; ends when dropped.
#[derive(Default)]
pub(super) struct LowThread(Option<(Sender<QueuedJob>, JoinHandle<()>)>);

impl LowThread {
    /// Runs `work` on the thread and waits for its end. A panic of `work` continues on the caller's thread.
    ///
    /// # Errors
    /// The system's error if it cannot start a thread; then `work` has not been called.
    ///
    /// # Safety
    /// It must be sound to run `work` on another thread while this one waits.
    pub(super) unsafe fn call<T>(&mut self, work: impl FnOnce() -> T) -> std::io::Result<T> {
        struct SendCell<F>(F);
        // SAFETY: `call` requires that `work` may be sent to this thread.
        unsafe impl<F> Send for SendCell<F> {}
        impl<F: FnOnce()> SendCell<F> {
            fn call(self) {
                (self.0)();
            }
        }

        let jobs = self.start()?;
        let mut result = None;
        let (done, ended) = channel();
        {
            let job = SendCell(|| result = Some(catch_unwind(AssertUnwindSafe(work))));
            let job: Box<dyn FnOnce() + Send + '_> = Box::new(move || job.call());
            // SAFETY: this function returns only after the job has ended and its captures have been dropped.
            let job = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(job) };
            jobs.send((job, done)).expect("the thread ends after its sender");
            ended.recv().expect("the thread answers each job");
        }
        match result.expect("the job has ended") {
            Ok(value) => Ok(value),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn start(&mut self) -> std::io::Result<&Sender<QueuedJob>> {
        if self.0.is_none() {
            let (jobs, received) = channel::<QueuedJob>();
            let thread = std::thread::Builder::new().name("lowrank-low".into()).spawn(move || {
                lower_priority();
                for (job, done) in received {
                    job();
                    done.send(()).ok();
                }
            })?;
            self.0 = Some((jobs, thread));
        }
        Ok(&self.0.as_ref().expect("it was just made").0)
    }
}

impl Drop for LowThread {
    fn drop(&mut self) {
        if let Some((jobs, thread)) = self.0.take() {
            drop(jobs);
            thread.join().ok();
        }
    }
}
