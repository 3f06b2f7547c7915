//! A device's thread: runs recordings one by one and latches errors.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::low_thread::LowThread;
use super::poisoned::Poisoned;
use super::{EmptyLists, IDLE_TIME, Listeners, MAX_EMPTY_LISTS, Runner};
use crate::error::{Code, Error, Result};
use crate::recording::{CancelToken, Command, Recording};

/// A message to the thread.
pub(super) enum Message {
    Run(Recording),
    Stop,
}

pub(super) fn lost_error(panic: &(dyn std::any::Any + Send)) -> Error {
    Error::new(Code::DeviceLost, format!("the device's thread panicked: {}", crate::panic::describe(panic)))
}

/// Runs commands until a stop message. The first error is latched, and every later reply gets it. A confined error (out
/// of memory, a kernel that does not compile) is an exception: it fails only the commands that depend on the result.
///
/// Background recordings run on a second thread at low priority while this one waits, because on Linux an unprivileged
/// process cannot raise a thread's priority again. The two threads take turns on one queue and switch only when the
/// priority changes, which costs some tens of microseconds.
pub(super) fn serve(
    runner: &mut impl Runner,
    receiver: &Receiver<Message>,
    stop: &AtomicBool,
    waiting: &AtomicUsize,
    empty_lists: &EmptyLists,
    listeners: &Listeners,
) {
    let (latched, poisoned) = (None, Poisoned::default());
    let mut server = Server { runner, receiver, stop, waiting, empty_lists, listeners, latched, poisoned };
    let mut low = LowThread::default();
    let mut next = None;
    loop {
        let Some(recording) = server.serve(Some(false), next.take()) else { return };
        let mut first = Some(recording);
        // SAFETY: this thread, which created the runner, waits until the call ends. Kernels keep no thread-local state
        // but scratch memory, and the runner has separate workers for each priority.
        let served = unsafe { low.call(|| server.serve(Some(true), first.take())) };
        next = match served {
            Ok(Some(recording)) => Some(recording),
            Ok(None) => return,
            // The system cannot start a thread: run everything here, at the usual priority.
            Err(_) => return drop(server.serve(None, first)),
        };
    }
}

struct Server<'a, R> {
    runner: &'a mut R,
    receiver: &'a Receiver<Message>,
    stop: &'a AtomicBool,
    waiting: &'a AtomicUsize,
    empty_lists: &'a EmptyLists,
    listeners: &'a Listeners,
    latched: Option<Error>,
    poisoned: Poisoned,
}

impl<R: Runner> Server<'_, R> {
    /// Runs `first` and the recordings after it, until one has another priority than `background`, and returns that
    /// one. With `None`, runs recordings of both priorities. Returns `None` when the queue is closed.
    fn serve(&mut self, background: Option<bool>, mut first: Option<Recording>) -> Option<Recording> {
        loop {
            let recording = match first.take() {
                Some(recording) => recording,
                None => self.receive()?,
            };
            if background.is_some_and(|background| recording.cpu_use.background != background) {
                return Some(recording);
            }
            self.run(recording);
        }
    }

    /// Returns the next recording. While it waits, the device does its idle work.
    fn receive(&mut self) -> Option<Recording> {
        let Server { runner, receiver, listeners, latched, .. } = self;
        loop {
            let message = match poll_message(receiver, runner.patience()) {
                Some(message) => message,
                None => {
                    if catch_and_latch(latched, || runner.idle()).unwrap_or(false) {
                        continue;
                    }
                    if latched.is_none() && catch_and_latch(latched, || runner.tune()).unwrap_or(false) {
                        continue;
                    }
                    match receiver.recv_timeout(IDLE_TIME) {
                        Ok(message) => message,
                        Err(RecvTimeoutError::Disconnected) => return None,
                        Err(RecvTimeoutError::Timeout) => {
                            catch_and_latch(latched, || runner.free_idle_memory());
                            // A callback may free tensors: that is work, after which the device is idle once more.
                            for (owner, callback) in &*listeners.lock().unwrap_or_else(|e| e.into_inner()) {
                                if !owner.is_cancelled() {
                                    callback();
                                }
                            }
                            receiver.recv().ok()?
                        }
                    }
                }
            };
            return match message {
                Message::Run(recording) => Some(recording),
                Message::Stop => None,
            };
        }
    }

    fn run(&mut self, mut recording: Recording) {
        let Server { runner, stop, waiting, empty_lists, latched, poisoned, .. } = self;
        let mut commands = std::mem::take(&mut recording.commands);
        runner.set_note(recording.note);
        catch_and_latch(latched, || runner.use_cpu(recording.cpu_use));
        if latched.is_none() && !recording.owner.is_cancelled() {
            catch_and_latch(latched, || runner.prepare(&commands));
        }
        let mut current = recording.token;
        let mut decided: Option<bool> = None;
        for command in commands.drain(..) {
            if stop.load(Ordering::Acquire) {
                latched.get_or_insert_with(|| Error::new(Code::Aborted, "the process is ending"));
            }
            let cancelled = |token: &Option<CancelToken>| {
                recording.owner.is_cancelled() || token.as_ref().is_some_and(CancelToken::is_cancelled)
            };
            let skip = decided.unwrap_or_else(|| cancelled(&current));
            match command {
                Command::SetCancelToken { token, once } => {
                    decided = once.then(|| cancelled(&token));
                    current = token;
                }
                Command::Note(note) => runner.set_note(note),
                Command::Read { reply, .. } | Command::Fence { reply } if latched.is_some() => {
                    reply(Err(latched.clone().expect("just seen")));
                }
                Command::Read { reply, .. } | Command::Fence { reply } if skip => {
                    reply(Err(Error::new(Code::Aborted, "cancelled")));
                }
                Command::Launch(_) | Command::Copy { .. } | Command::Zero { .. }
                    if skip || latched.is_some() => {}
                // Uploads run even in a cancelled step, since later steps may use the uploaded table.
                Command::Upload { .. } | Command::UploadMapped { .. } | Command::UploadShared { .. }
                    if recording.owner.is_cancelled() || latched.is_some() => {}
                Command::Receive { .. } if skip || latched.is_some() => {}
                command => {
                    catch_and_latch(latched, || run_command(*runner, poisoned, &recording.owner, command));
                }
            }
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
        if latched.is_none() {
            catch_and_latch(latched, || runner.tune());
        }
        let mut empty_lists = empty_lists.lock().unwrap_or_else(|e| e.into_inner());
        if empty_lists.len() < MAX_EMPTY_LISTS {
            empty_lists.push(commands);
        }
    }
}

/// Returns a message that is queued or arrives within `patience`.
fn poll_message(receiver: &Receiver<Message>, patience: Duration) -> Option<Message> {
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

/// Runs a command, unless a confined error invalidated a buffer that it reads or writes. Any other error stops the
/// device.
fn run_command(
    runner: &mut impl Runner,
    poisoned: &mut Poisoned,
    owner: &CancelToken,
    command: Command,
) -> Result<()> {
    let command = match command {
        // What a read depends on was computed by now, so that a change of a file is found before its result is used.
        Command::Read { from, reply } => match runner.take_changed_file() {
            Some((error, buffers)) => {
                poisoned.poison(buffers, &error);
                reply(Err(error));
                return Ok(());
            }
            None => Command::Read { from, reply },
        },
        command => command,
    };
    let written = Poisoned::list_written_buffers(&command);
    if let Some(error) = poisoned.find_error(&command) {
        poisoned.poison(written, &error);
        if let Command::Read { reply, .. } = command {
            poisoned.take_error(owner);
            reply(Err(error));
        }
        return Ok(());
    }
    let mut created = None;
    let result = match command {
        Command::Destroy { buffer } if poisoned.clear(buffer) => Ok(()),
        Command::Reuse { buffer, bytes } if poisoned.clear(buffer) => {
            created = Some(buffer);
            runner.run(Command::Create { buffer, bytes })
        }
        Command::Fence { reply } => match poisoned.take_error(owner) {
            Some(error) => {
                reply(Err(error));
                Ok(())
            }
            None => runner.run(Command::Fence { reply }),
        },
        // Data from another device is uploaded like host data.
        Command::Receive { to, from } => {
            // The other device may wait for replies of this one.
            while runner.idle()? {}
            let lost = || Error::new(Code::DeviceLost, "the device that a tensor came from has gone");
            match from.recv().unwrap_or_else(|_| Err(lost())) {
                Ok(bytes) => runner.run(Command::Upload { to, bytes }),
                // The other device failed, not this one.
                Err(error) => {
                    poisoned.poison(written, &error);
                    // A cancelled read is not a failure that the next fence reports.
                    if error.code != Code::Aborted {
                        poisoned.queue_error(owner, &error);
                    }
                    return Ok(());
                }
            }
        }
        command => {
            if let Command::Create { buffer, .. } = &command {
                created = Some(*buffer);
            }
            runner.run(command)
        }
    };
    match result {
        Err(error) if error.is_confined() => {
            if let Some(buffer) = created {
                poisoned.mark_absent(buffer, &error);
            }
            poisoned.poison(written, &error);
            poisoned.queue_error(owner, &error);
            Ok(())
        }
        result => result,
    }
}

fn catch_and_latch<T>(latched: &mut Option<Error>, f: impl FnOnce() -> Result<T>) -> Option<T> {
    let error = match std::panic::catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error,
        Err(panic) => lost_error(&*panic),
    };
    latched.get_or_insert(error);
    None
}

pub(super) fn reject(recording: Recording, error: &Error) {
    for command in recording.commands {
        if let Command::Read { reply, .. } | Command::Fence { reply } = command {
            reply(Err(error.clone()));
        }
    }
}
