//! What a device is: a profile, and a thread that runs recordings in order.
//!
//! Devices belong to the process and know no operations. A device's thread owns its buffers;
//! environments send it recordings and are answered through the replies in them.

pub mod cpu;
pub mod gpu;
mod poisoned;
pub mod registry;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::fail;
use poisoned::Poisoned;

use crate::recording::{CancelToken, Command, Recording};
use crate::trace::Note;
use crate::tune::{Class, Family, Outcome, Table};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Cpu,
    Gpu,
}

/// All that a plan may look at.
#[derive(Clone, Debug)]
pub struct Profile {
    pub kind: Kind,
    /// As the user names it: `cpu`, `gpu`, `gpu:1`, `meta:cpu`.
    pub label: String,
    /// As the vendor names it.
    pub name: String,
    /// Vulkan, Metal, Dx12, or the instruction set of a processor.
    pub backend: String,
    /// A GPU implemented in software.
    pub software: bool,
    /// Lanes of the smallest subgroup, where kernels may use them; else 0.
    pub subgroup: u32,
    /// Whether kernels may read f16.
    pub f16: bool,
    /// Bytes that one binding of a kernel may span.
    pub binding_limit: u64,
    /// Bytes of the largest buffer.
    pub buffer_limit: u64,
    /// Bytes that may be in use at once, as far as is known.
    pub memory: u64,
    /// Whether mapped files are read in place.
    pub maps_files: bool,
    pub threads: usize,
}

impl Profile {
    /// Bytes that the system has free for its buffers now, where it tells: of a processor, and of a GPU in software.
    pub fn free_memory(&self) -> Option<u64> {
        (self.kind == Kind::Cpu || self.software).then(cpu::system::free)?
    }
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

enum Message {
    Run(Recording),
    Stop,
}

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
}

/// What a device's thread gives when it has opened.
struct Ready {
    profile: Profile,
    table: Option<Arc<Table>>,
    submissions: Arc<AtomicU64>,
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
                        ready.send(Ok(Ready { profile, table, submissions })).ok();
                        runner
                    }
                    Ok(Err(error)) => return drop(ready.send(Err(error))),
                    Err(panic) => return drop(ready.send(Err(lost(&*panic)))),
                };
                serve(&mut runner, &receiver, &stop, &sent, &used, &told);
            })
            .map_err(|e| Error::new(Code::Internal, format!("no thread for a device: {e}")))?;
        let Ready { profile, table, submissions } = opened.recv().unwrap_or_else(|_| {
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

impl Drop for Device {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}

fn lost(panic: &(dyn std::any::Any + Send)) -> Error {
    Error::new(Code::DeviceLost, format!("the device's thread panicked: {}", crate::panic::told(panic)))
}

/// Runs commands until told to stop. The first error is latched, and every later reply gets it;
/// but where memory ran out, only what depends on it fails.
fn serve(
    runner: &mut impl Runner,
    receiver: &Receiver<Message>,
    stop: &AtomicBool,
    waiting: &AtomicUsize,
    emptied: &Emptied,
    listeners: &Listeners,
) {
    let mut latched: Option<Error> = None;
    let mut poisoned = Poisoned::default();
    loop {
        let message = match look_for(receiver, runner.patience()) {
            Some(message) => message,
            None => {
                if guarded(&mut latched, || runner.idle()).unwrap_or(false) {
                    continue;
                }
                if latched.is_none() && guarded(&mut latched, || runner.tune()).unwrap_or(false) {
                    continue;
                }
                match receiver.recv_timeout(REST) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        guarded(&mut latched, || runner.rest());
                        // What they give back is work, after which the device rests once more.
                        for (owner, rested) in &*listeners.lock().unwrap_or_else(|e| e.into_inner()) {
                            if !owner.is_cancelled() {
                                rested();
                            }
                        }
                        match receiver.recv() {
                            Ok(message) => message,
                            Err(_) => return,
                        }
                    }
                }
            }
        };
        let Message::Run(mut recording) = message else { return };
        let mut commands = std::mem::take(&mut recording.commands);
        runner.note(recording.note);
        let mut under = recording.under;
        let mut decided: Option<bool> = None;
        for command in commands.drain(..) {
            if stop.load(Ordering::Acquire) {
                latched.get_or_insert_with(|| Error::new(Code::Aborted, "the process is ending"));
            }
            let cancelled = |under: &Option<CancelToken>| {
                recording.owner.is_cancelled() || under.as_ref().is_some_and(CancelToken::is_cancelled)
            };
            let skip = decided.unwrap_or_else(|| cancelled(&under));
            match command {
                Command::Under { token, once } => {
                    decided = once.then(|| cancelled(&token));
                    under = token;
                }
                Command::Note(note) => runner.note(note),
                Command::Read { reply, .. } | Command::Fence { reply } if latched.is_some() => {
                    reply(Err(latched.clone().expect("just seen")));
                }
                Command::Read { reply, .. } | Command::Fence { reply } if skip => {
                    reply(Err(Error::new(Code::Aborted, "cancelled")));
                }
                Command::Launch(_) | Command::Copy { .. } | Command::Zero { .. }
                    if skip || latched.is_some() => {}
                // What the host gives is kept through a cancelled step: a table that it made there
                // is used by later ones.
                Command::Upload { .. } | Command::UploadMapped { .. }
                    if recording.owner.is_cancelled() || latched.is_some() => {}
                Command::Receive { .. } if skip || latched.is_some() => {}
                command => {
                    guarded(&mut latched, || attempt(runner, &mut poisoned, &recording.owner, command));
                }
            }
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        if latched.is_none() {
            guarded(&mut latched, || runner.tune());
        }
        let mut emptied = emptied.lock().unwrap_or_else(|e| e.into_inner());
        if emptied.len() < EMPTIED {
            emptied.push(commands);
        }
    }
}

/// A message that is there or comes within `patience`.
fn look_for(receiver: &Receiver<Message>, patience: Duration) -> Option<Message> {
    let mut since = None;
    loop {
        if let Ok(message) = receiver.try_recv() {
            return Some(message);
        }
        if patience.is_zero() || since.get_or_insert_with(Instant::now).elapsed() > patience {
            return None;
        }
        std::hint::spin_loop();
    }
}

/// Runs a command, unless memory for what it reads or writes ran out. An error is one of the device.
fn attempt(
    runner: &mut impl Runner,
    poisoned: &mut Poisoned,
    owner: &CancelToken,
    command: Command,
) -> Result<()> {
    let written = Poisoned::written(&command);
    if let Some(error) = poisoned.hinders(&command) {
        poisoned.poison(written, &error);
        if let Command::Read { reply, .. } = command {
            poisoned.told(owner);
            reply(Err(error));
        }
        return Ok(());
    }
    let mut made = None;
    let ran = match command {
        Command::Destroy { buffer } if poisoned.forget(buffer) => Ok(()),
        Command::Reuse { buffer, bytes } if poisoned.forget(buffer) => {
            made = Some(buffer);
            runner.run(Command::Create { buffer, bytes })
        }
        Command::Fence { reply } => match poisoned.told(owner) {
            Some(error) => {
                reply(Err(error));
                Ok(())
            }
            None => runner.run(Command::Fence { reply }),
        },
        // What another device sends is an upload like any other.
        Command::Receive { to, from } => {
            // It may wait in turn for what this device has yet to answer.
            while runner.idle()? {}
            let gone = || Error::new(Code::DeviceLost, "the device that a tensor came from has gone");
            match from.recv().unwrap_or_else(|_| Err(gone())) {
                Ok(bytes) => runner.run(Command::Upload { to, bytes }),
                // It is the other device that failed.
                Err(error) => {
                    poisoned.poison(written, &error);
                    poisoned.owe(owner, &error);
                    return Ok(());
                }
            }
        }
        command => {
            if let Command::Create { buffer, .. } = &command {
                made = Some(*buffer);
            }
            runner.run(command)
        }
    };
    match ran {
        Err(error) if error.code == Code::OutOfMemory => {
            if let Some(buffer) = made {
                poisoned.miss(buffer, &error);
            }
            poisoned.poison(written, &error);
            poisoned.owe(owner, &error);
            Ok(())
        }
        ran => ran,
    }
}

fn guarded<T>(latched: &mut Option<Error>, f: impl FnOnce() -> Result<T>) -> Option<T> {
    let error = match std::panic::catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error,
        Err(panic) => lost(&*panic),
    };
    latched.get_or_insert(error);
    None
}

fn reject(recording: Recording, error: &Error) {
    for command in recording.commands {
        if let Command::Read { reply, .. } | Command::Fence { reply } = command {
            reply(Err(error.clone()));
        }
    }
}

/// The profile of `meta:<label>`: the same plans and the same pool, and nothing runs.
pub fn meta_profile(of: &Profile) -> Profile {
    Profile { label: format!("meta:{}", of.label), ..of.clone() }
}

/// Refuses a number of bytes that no plan may bind.
pub fn check_binding(profile: &Profile, what: &str, bytes: u64) -> Result<()> {
    if bytes > profile.binding_limit {
        fail!(
            OutOfMemory,
            "{what} needs {bytes} bytes at once, and a kernel of {} binds at most {}",
            profile.name,
            profile.binding_limit
        );
    }
    Ok(())
}
