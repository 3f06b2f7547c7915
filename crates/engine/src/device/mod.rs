//! What a device is: a profile, and a thread that runs recordings in order.
//!
//! Devices belong to the process and know no operations. A device's thread owns its buffers;
//! environments send it recordings and are answered through the replies in them.

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

use crate::error::{Code, Error, Result};
use crate::fail;
use thread::{Message, lost, reject, serve};

use crate::mapped_file::{Borrower, MappedFile};
use crate::profile::{Kind, Profile};
use crate::recording::{CancelToken, Command, CpuUse, Recording};
use crate::trace::Note;
use crate::tune::{Class, Family, Outcome, Table};

/// Bytes that the system has free for a device's buffers now, where it tells: of a processor, and of a GPU in software.
pub fn free_memory(of: &Profile) -> Option<u64> {
    (of.kind == Kind::Cpu || of.software).then(cpu::system::free)?
}

/// Runs commands; lives on the device's thread.
pub trait Runner {
    /// Runs a recording. An error is latched by the caller: what follows is not run.
    fn run(&mut self, command: Command) -> Result<()>;
    /// How long it looks for the next recording before `idle` is called and its thread sleeps. Whoever records many
    /// small operations would else wake it for each few: tens of microseconds on both sides.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
    /// Called when no command waits: submits what is held back, waits for it a little.
    ///
    /// Returns whether something is still on its way, and `idle` wants to be called again.
    fn idle(&mut self) -> Result<bool> {
        Ok(false)
    }
    /// Called when nothing was asked for `REST`: gives back what the device holds besides the buffers.
    fn rest(&mut self) -> Result<()> {
        Ok(())
    }
    /// Counts what a GPU was handed.
    fn submissions(&self) -> Arc<AtomicU64> {
        Arc::default()
    }
    /// Microseconds of the longest submission of a GPU so far.
    fn longest_submission(&self) -> Arc<AtomicU64> {
        Arc::default()
    }
    /// What its thread and those who record for it share of the forms that it tries.
    fn table(&self) -> Option<Arc<Table>> {
        None
    }
    /// Called between recordings, and when there is nothing to do: a submission at most of the device's own, to find
    /// out what is fast.
    ///
    /// Returns whether it wants to be called again.
    fn tune(&mut self) -> Result<bool> {
        Ok(false)
    }
    /// Whose the commands that follow are: what they take is told there. `None` where nobody asks.
    fn note(&mut self, _note: Option<Note>) {}
    /// How the commands that follow may use the processor. Called on the thread that runs them, which is another one
    /// where they are in the background.
    fn use_cpu(&mut self, _cpu_use: CpuUse) -> Result<()> {
        Ok(())
    }
}

/// How long a device waits for work before it rests.
pub const REST: Duration = Duration::from_secs(2);

/// Called on the device's thread whenever it rests.
pub type Rested = Arc<dyn Fn() + Send + Sync>;

/// Who is told that a device rests, by the environment that each belongs to.
type Listeners = Arc<Mutex<Vec<(CancelToken, Rested)>>>;

/// Lists of commands that were run, for recordings to come. Else each was the allocator's anew: some 50 KB, made on
/// one thread and freed on another.
type Emptied = Arc<Mutex<Vec<Vec<Command>>>>;
/// Lists that are kept.
const EMPTIED: usize = 4;

/// Where recordings go.
#[derive(Clone)]
pub enum Sink {
    Thread(Arc<Device>),
    /// Nothing runs.
    Meta,
    /// Commands are kept, for whoever runs them himself.
    Kept(Arc<Mutex<Vec<Command>>>),
}

impl Sink {
    pub fn send(&self, recording: Recording) {
        match self {
            Sink::Thread(device) => device.send(recording),
            Sink::Meta => {}
            Sink::Kept(kept) => {
                kept.lock().unwrap_or_else(|e| e.into_inner()).extend(recording.commands);
            }
        }
    }

    /// What is known of the device's forms, where it tries any.
    pub fn table(&self) -> Option<&Table> {
        match self {
            Sink::Thread(device) => device.table.as_deref(),
            Sink::Meta | Sink::Kept(_) => None,
        }
    }

    /// Who keeps what is sent of a mapped file.
    pub fn borrower(&self) -> Option<Arc<dyn Borrower>> {
        match self {
            Sink::Thread(device) => Some(device.clone()),
            Sink::Meta | Sink::Kept(_) => None,
        }
    }

    /// A list for at least `commands`.
    pub fn list(&self, commands: usize) -> Vec<Command> {
        let emptied = match self {
            Sink::Thread(device) => device.emptied.lock().unwrap_or_else(|e| e.into_inner()).pop(),
            Sink::Meta | Sink::Kept(_) => None,
        };
        let mut list = emptied.unwrap_or_default();
        list.reserve(commands);
        list
    }

    /// Whether the device has run all that it was sent.
    pub fn is_idle(&self) -> bool {
        match self {
            Sink::Thread(device) => device.waiting.load(Ordering::Relaxed) == 0,
            Sink::Meta | Sink::Kept(_) => false,
        }
    }
}

/// What was found of a device's forms.
pub struct Found {
    /// Whether runs use it.
    pub used: bool,
    /// Where it is kept.
    pub file: Option<PathBuf>,
    pub outcomes: Vec<Outcome>,
    /// Classes that could not be tried, and why.
    pub failures: Vec<(Class, Error)>,
}

/// A device of the process, with its thread.
pub struct Device {
    pub profile: Profile,
    sender: Mutex<Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
    /// Recordings that were sent and have not been run to their end.
    waiting: Arc<AtomicUsize>,
    emptied: Emptied,
    listeners: Listeners,
    /// What is known of its forms, where it tries any.
    pub table: Option<Arc<Table>>,
    /// Submissions to the GPU so far; none where it is no GPU.
    pub submissions: Arc<AtomicU64>,
    /// Microseconds that the longest submission to the GPU took so far; 0 where it is no GPU.
    pub longest_submission: Arc<AtomicU64>,
}

/// What a device's thread gives when it has opened.
struct Ready {
    profile: Profile,
    table: Option<Arc<Table>>,
    submissions: Arc<AtomicU64>,
    longest_submission: Arc<AtomicU64>,
}

impl Device {
    /// Starts the thread; `open` runs on it, so that what it makes never leaves it.
    pub fn start<R: Runner>(
        open: impl FnOnce() -> Result<(Profile, R)> + Send + 'static,
    ) -> Result<Arc<Device>> {
        let (sender, receiver) = channel::<Message>();
        let (ready, opened) = channel::<Result<Ready>>();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = waiting.clone();
        let emptied = Emptied::default();
        let used = emptied.clone();
        let listeners = Listeners::default();
        let told = listeners.clone();
        let thread = std::thread::Builder::new()
            .name("lowrank-device".into())
            .spawn(move || {
                let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
                let mut runner = match opened {
                    Ok(Ok((profile, runner))) => {
                        let (table, submissions) = (runner.table(), runner.submissions());
                        let longest_submission = runner.longest_submission();
                        ready.send(Ok(Ready { profile, table, submissions, longest_submission })).ok();
                        runner
                    }
                    Ok(Err(error)) => return drop(ready.send(Err(error))),
                    Err(panic) => return drop(ready.send(Err(lost(&*panic)))),
                };
                serve(&mut runner, &receiver, &stop, &sent, &used, &told);
            })
            .map_err(|e| Error::new(Code::Internal, format!("no thread for a device: {e}")))?;
        let Ready { profile, table, submissions, longest_submission } =
            opened.recv().unwrap_or_else(|_| {
                Err(Error::new(Code::DeviceLost, "the device's thread ended while opening"))
            })?;
        Ok(Arc::new(Device {
            profile,
            sender: Mutex::new(sender),
            thread: Mutex::new(Some(thread)),
            stopping,
            waiting,
            emptied,
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

    /// Has `rested` called after each `REST` without work, until `owner` is cancelled.
    pub fn on_rest(&self, owner: CancelToken, rested: Rested) {
        let mut listeners = self.listeners.lock().unwrap_or_else(|e| e.into_inner());
        listeners.retain(|(owner, _)| !owner.is_cancelled());
        listeners.push((owner, rested));
    }

    /// Tries the usual classes of `families` now and waits for what is found; nothing of a device that tries no forms.
    ///
    /// # Errors
    /// `ERR_DEVICE_LOST` where the device stops answering.
    pub fn tune(&self, families: &[&'static Family]) -> Result<Option<Found>> {
        let Some(table) = &self.table else { return Ok(None) };
        let classes = |family: &&'static Family| {
            let family = *family;
            (family.usual)().into_iter().map(move |(words, forms)| (Class { family, words }, forms))
        };
        table.ask(families.iter().flat_map(classes));
        // Wakes the thread.
        self.send(Recording::default());
        let (outcomes, failures) = table.wait(Duration::from_secs(120));
        if !table.is_done() {
            fail!(DeviceLost, "{}: trials of forms came to no end", self.profile.name);
        }
        let file = table.file().map(Path::to_path_buf);
        Ok(Some(Found { used: table.is_background(), file, outcomes, failures }))
    }

    /// Cancels what waits and joins the thread; gives up after `patience`.
    ///
    /// Returns whether the thread ended.
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
        // One that does not answer has ended, and its buffers with it.
        receive.recv().unwrap_or(Ok(Vec::new())).map(drop)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}
