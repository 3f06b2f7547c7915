//! A device: a profile, and a thread that runs its recordings one by one.
//!
//! Devices belong to the process and know no operations. A device's thread owns its buffers. Environments send it
//! recordings, whose commands carry callbacks for replies.

pub mod cpu;
pub mod gpu;
mod low_thread;
mod poisoned;
pub mod registry;
#[cfg(test)]
mod tests;
mod thread;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use poisoned::Buffers;

use crate::error::{Code, Error, Result};
use crate::fail;
use thread::{Message, lost_error, reject, serve};

use crate::mapped_file::{Borrower, MappedFile};
use crate::profile::{Kind, Profile};
use crate::recording::{CancelToken, Command, CpuUse, Recording};
use crate::trace::Note;
use crate::tune::{Class, Family, Outcome, Table};

/// Bytes that the system has free for a device's buffers, if known: for a processor and for a software GPU.
pub fn read_free_memory(profile: &Profile) -> Option<u64> {
    (profile.kind == Kind::Cpu || profile.software).then(cpu::system::read_free_memory)?
}

/// Runs commands; lives on the device's thread.
pub trait Runner {
    /// Called with the commands of a recording before they run.
    fn prepare(&mut self, _commands: &[Command]) -> Result<()> {
        Ok(())
    }
    /// Runs one command. The caller latches an error and skips all later commands.
    fn run(&mut self, command: Command) -> Result<()>;
    /// The time to poll for the next recording before the thread calls `idle` and sleeps. Without it, recording many
    /// small operations would wake the thread every few operations, which costs tens of microseconds on both sides.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
    /// Called when no command is queued: submits pending work and waits a short time for it.
    ///
    /// Returns whether work is still in progress, so that `idle` must be called again.
    fn idle(&mut self) -> Result<bool> {
        Ok(false)
    }
    /// Called after `IDLE_TIME` without work: frees all memory except the buffers.
    fn free_idle_memory(&mut self) -> Result<()> {
        Ok(())
    }
    /// Finds a file with buffers that was changed since it was mapped, and forgets it: the error, and its buffers.
    fn take_changed_file(&mut self) -> Option<(Error, Buffers)> {
        None
    }
    /// The number of submissions to a GPU.
    fn submissions(&self) -> Arc<AtomicU64> {
        Arc::default()
    }
    /// Microseconds of the longest submission of a GPU so far.
    fn longest_submission(&self) -> Arc<AtomicU64> {
        Arc::default()
    }
    /// The autotuning table, which the device's thread shares with its contexts.
    fn table(&self) -> Option<Arc<Table>> {
        None
    }
    /// Called between recordings and when idle: makes at most one submission for autotuning.
    ///
    /// Returns whether it must be called again.
    fn tune(&mut self) -> Result<bool> {
        Ok(false)
    }
    /// Sets the trace entry that the following commands are charged to; `None` without a trace.
    fn set_note(&mut self, _note: Option<Note>) {}
    /// Sets the CPU use of the following commands. Called on the thread that runs them, which differs for background
    /// work.
    fn use_cpu(&mut self, _cpu_use: CpuUse) -> Result<()> {
        Ok(())
    }
}

/// The time without work after which a device is idle.
pub const IDLE_TIME: Duration = Duration::from_secs(2);

/// Called on the device's thread whenever it is idle.
pub type IdleCallback = Arc<dyn Fn() + Send + Sync>;

/// The idle callbacks, each with the environment that it belongs to.
type Listeners = Arc<Mutex<Vec<(CancelToken, IdleCallback)>>>;

/// Emptied command lists for later recordings. Otherwise each recording would allocate about 50 KB on one thread and
/// free it on another.
type EmptyLists = Arc<Mutex<Vec<Vec<Command>>>>;
/// The most lists that are kept.
const MAX_EMPTY_LISTS: usize = 4;

/// The destination of recordings.
#[derive(Clone)]
pub enum Sink {
    Thread(Arc<Device>),
    /// Nothing runs.
    Meta,
    /// Commands are collected for the caller to run.
    Collected(Arc<Mutex<Vec<Command>>>),
}

impl Sink {
    pub fn send(&self, recording: Recording) {
        match self {
            Sink::Thread(device) => device.send(recording),
            Sink::Meta => {}
            Sink::Collected(commands) => {
                commands.lock().unwrap_or_else(|e| e.into_inner()).extend(recording.commands);
            }
        }
    }

    /// The device's autotuning table, if it has one.
    pub fn table(&self) -> Option<&Table> {
        match self {
            Sink::Thread(device) => device.table.as_deref(),
            Sink::Meta | Sink::Collected(_) => None,
        }
    }

    /// The device as a borrower of mapped files.
    pub fn borrower(&self) -> Option<Arc<dyn Borrower>> {
        match self {
            Sink::Thread(device) => Some(device.clone()),
            Sink::Meta | Sink::Collected(_) => None,
        }
    }

    /// Returns an empty list with room for at least `commands`.
    pub fn take_list(&self, commands: usize) -> Vec<Command> {
        let list = match self {
            Sink::Thread(device) => device.empty_lists.lock().unwrap_or_else(|e| e.into_inner()).pop(),
            Sink::Meta | Sink::Collected(_) => None,
        };
        let mut list = list.unwrap_or_default();
        list.reserve(commands);
        list
    }

    /// Whether the device has run everything that was sent to it.
    pub fn is_idle(&self) -> bool {
        match self {
            Sink::Thread(device) => device.waiting.load(Ordering::Relaxed) == 0,
            Sink::Meta | Sink::Collected(_) => false,
        }
    }
}

/// The autotuning results of a device.
pub struct TuningResults {
    /// Whether runs use them.
    pub used: bool,
    /// The file that stores them.
    pub file: Option<PathBuf>,
    pub outcomes: Vec<Outcome>,
    /// Classes that could not be tried, with the errors.
    pub failures: Vec<(Class, Error)>,
}

/// A device of the process, with its thread.
pub struct Device {
    pub profile: Profile,
    sender: Mutex<Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
    /// The number of recordings that were sent and are not complete.
    waiting: Arc<AtomicUsize>,
    empty_lists: EmptyLists,
    listeners: Listeners,
    /// The autotuning table, if the device has one.
    pub table: Option<Arc<Table>>,
    /// Submissions to the GPU so far; 0 for other devices.
    pub submissions: Arc<AtomicU64>,
    /// Microseconds of the longest submission to the GPU so far; 0 for other devices.
    pub longest_submission: Arc<AtomicU64>,
}

/// The data that a device's thread reports once the device is open.
struct OpenedDevice {
    profile: Profile,
    table: Option<Arc<Table>>,
    submissions: Arc<AtomicU64>,
    longest_submission: Arc<AtomicU64>,
}

impl Device {
    /// Starts the thread and runs `open` on it, so that its result never leaves the thread.
    pub fn start<R: Runner>(
        open: impl FnOnce() -> Result<(Profile, R)> + Send + 'static,
    ) -> Result<Arc<Device>> {
        let (sender, receiver) = channel::<Message>();
        let (ready, opened) = channel::<Result<OpenedDevice>>();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = waiting.clone();
        let empty_lists = EmptyLists::default();
        let used = empty_lists.clone();
        let listeners = Listeners::default();
        let callbacks = listeners.clone();
        let thread = std::thread::Builder::new()
            .name("lowrank-device".into())
            .spawn(move || {
                let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
                let mut runner = match opened {
                    Ok(Ok((profile, runner))) => {
                        let (table, submissions) = (runner.table(), runner.submissions());
                        let longest_submission = runner.longest_submission();
                        ready.send(Ok(OpenedDevice { profile, table, submissions, longest_submission })).ok();
                        runner
                    }
                    Ok(Err(error)) => return drop(ready.send(Err(error))),
                    Err(panic) => return drop(ready.send(Err(lost_error(&*panic)))),
                };
                serve(&mut runner, &receiver, &stop, &sent, &used, &callbacks);
            })
            .map_err(|e| Error::new(Code::Internal, format!("no thread for a device: {e}")))?;
        let OpenedDevice { profile, table, submissions, longest_submission } =
            opened.recv().unwrap_or_else(|_| {
                Err(Error::new(Code::DeviceLost, "the device's thread ended while opening"))
            })?;
        Ok(Arc::new(Device {
            profile,
            sender: Mutex::new(sender),
            thread: Mutex::new(Some(thread)),
            stopping,
            waiting,
            empty_lists,
            listeners,
            table,
            submissions,
            longest_submission,
        }))
    }

    pub fn send(&self, recording: Recording) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.sender.lock().unwrap_or_else(|e| e.into_inner()).send(Message::Run(recording));
        if let Err(unsent) = sent
            && let Message::Run(recording) = unsent.0
        {
            reject(recording, &Error::new(Code::DeviceLost, "the device has been stopped"));
        }
    }

    /// Registers `callback`, to be called after each `IDLE_TIME` without work until `owner` is cancelled.
    pub fn on_idle(&self, owner: CancelToken, callback: IdleCallback) {
        let mut listeners = self.listeners.lock().unwrap_or_else(|e| e.into_inner());
        listeners.retain(|(owner, _)| !owner.is_cancelled());
        listeners.push((owner, callback));
    }

    /// Tries the usual classes of `families` now and waits for the results; returns `None` for a device without
    /// autotuning.
    ///
    /// # Errors
    /// `ERR_DEVICE_LOST` if the device stops responding.
    pub fn tune(&self, families: &[&'static Family]) -> Result<Option<TuningResults>> {
        let Some(table) = &self.table else { return Ok(None) };
        let classes = |family: &&'static Family| {
            let family = *family;
            (family.usual)().into_iter().map(move |(words, forms)| (Class { family, words }, forms))
        };
        table.request(families.iter().flat_map(classes));
        // Wakes the thread.
        self.send(Recording::default());
        let (outcomes, failures) = table.wait(Duration::from_secs(120));
        if !table.is_done() {
            fail!(DeviceLost, "{}: autotuning did not finish", self.profile.name);
        }
        let file = table.file().map(Path::to_path_buf);
        Ok(Some(TuningResults { used: table.is_background(), file, outcomes, failures }))
    }

    /// Cancels queued work and joins the thread, waiting at most `patience`.
    ///
    /// Returns whether the thread has ended.
    pub fn stop(&self, patience: Duration) -> bool {
        self.stopping.store(true, Ordering::Release);
        self.sender.lock().unwrap_or_else(|e| e.into_inner()).send(Message::Stop).ok();
        let Some(thread) = self.thread.lock().unwrap_or_else(|e| e.into_inner()).take() else { return true };
        let start = Instant::now();
        while !thread.is_finished() {
            if start.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().is_ok()
    }
}

impl Borrower for Device {
    fn copy_out(&self, file: &Arc<MappedFile>) -> Result<()> {
        let (send, receive) = channel();
        let reply = Box::new(move |done| drop(send.send(done)));
        let commands = vec![Command::Unmap { file: file.clone(), reply }];
        self.send(Recording { commands, ..Recording::default() });
        // If the channel is closed, the device has ended and its buffers are gone.
        receive.recv().unwrap_or(Ok(Vec::new())).map(drop)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}
