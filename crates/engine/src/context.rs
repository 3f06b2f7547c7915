//! The context of a device: one environment's pool and waiting recording.

mod constants;
mod in_files;
mod offload;
mod room;
mod value;
mod values;

pub use offload::Offload;
pub use room::Memory;
pub use value::{Spec, Storage, Value};

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use constants::Constants;
use in_files::FileUses;

use crate::device::Sink;
use crate::error::{Error, Result};
use crate::fail;
use crate::kernel::{Launch, Params};
use crate::pool::Pool;
use crate::profile::{Kind, Profile};
use crate::recording::{CancelToken, Command, CpuUse, Recording, Reply};
use crate::trace::{Pass, Trace, Tracer};
use crate::tune::Class;

/// Commands that may wait before they are submitted automatically.
const FLUSH_COMMANDS: usize = 128;
/// Commands, or arithmetic, after which an idle CPU gets work: it computes while the rest is recorded.
const IDLE_FLUSH_COMMANDS: usize = 16;
const IDLE_FLUSH_WORK: u64 = 100_000;
/// A GPU waits for more commands, since each submission has a cost, while the work is at most this; so a decoded token
/// is one submission.
const SMALL_WORK: u64 = 4_000_000_000;
const FLUSH_COMMANDS_OF_SMALL_WORK: usize = 2048;
const FLUSH_UPLOAD_BYTES: u64 = 64 << 20;

/// One environment's use of one device: its pool and its waiting recording.
pub struct Context {
    pub profile: Profile,
    sink: Sink,
    owner: CancelToken,
    cancel_token: RefCell<Option<CancelToken>>,
    cpu_use: Cell<CpuUse>,
    /// Whether waiting commands must stay together.
    batching: Cell<bool>,
    pool: RefCell<Pool>,
    recording: RefCell<Recording>,
    file_uses: RefCell<FileUses>,
    launches: Cell<u64>,
    /// Floating-point operations of all recorded launches.
    work: Cell<u64>,
    /// Names of the kernels launched since `count_launches(true)`, for tests that count them.
    launch_counts: RefCell<Option<std::collections::HashMap<&'static str, u64>>>,
    tracer: Tracer,
    /// Called when memory is short: releases tensors that nothing needs.
    shortage: RefCell<Option<Rc<dyn Fn()>>>,
    constants: RefCell<Constants>,
    /// Bytes that may be allocated before the system is asked again for its free memory.
    known_free: Cell<u64>,
}

impl Context {
    pub fn new(profile: Profile, sink: Sink) -> Rc<Self> {
        Context::with_owner(profile, sink, CancelToken::default())
    }

    /// A context whose every recording is skipped once `owner` is cancelled: an environment's end.
    pub fn with_owner(profile: Profile, sink: Sink, owner: CancelToken) -> Rc<Self> {
        Rc::new(Context {
            owner,
            cancel_token: RefCell::default(),
            cpu_use: Cell::default(),
            batching: Cell::new(false),
            pool: RefCell::new(Pool::new(profile.buffer_limit)),
            profile,
            sink,
            recording: RefCell::default(),
            file_uses: RefCell::default(),
            launches: Cell::new(0),
            work: Cell::new(0),
            launch_counts: RefCell::new(None),
            tracer: Tracer::default(),
            shortage: RefCell::default(),
            constants: RefCell::default(),
            known_free: Cell::new(0),
        })
    }

    /// The destination of its recordings.
    pub fn sink(&self) -> Sink {
        self.sink.clone()
    }

    pub fn is_meta(&self) -> bool {
        matches!(self.sink, Sink::Meta)
    }

    /// Overwrites `value` with `bytes`.
    pub fn write(&self, value: &Value, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.push(Command::Upload { to: value.range(), bytes });
        }
    }

    pub fn zero(&self, value: &Value) {
        if value.bytes() > 0 {
            self.push(Command::Zero { to: value.range() });
        }
    }

    /// Copies whole values of equal bytes.
    pub fn copy(&self, from: &Value, to: &Value) {
        debug_assert_eq!(from.bytes(), to.bytes());
        if from.bytes() > 0 {
            self.push(Command::Copy { from: from.range(), to: to.range() });
        }
    }

    pub fn launch(&self, launch: Launch) {
        debug_assert_eq!(launch.bindings.len(), launch.kernel.bindings.len(), "{}", launch.kernel.name);
        debug_assert_eq!(launch.scalars.len(), (launch.kernel.scalars)().len(), "{}", launch.kernel.name);
        self.launches.set(self.launches.get() + 1);
        self.work.set(self.work.get() + launch.work);
        if let Some(counts) = self.launch_counts.borrow_mut().as_mut() {
            *counts.entry(launch.kernel.name).or_default() += 1;
        }
        #[cfg(test)]
        if !self.is_meta() {
            crate::kernel::coverage::record(self.profile.kind, &launch);
        }
        self.push(Command::Launch(launch));
    }

    /// Starts or stops counting launches by kernel; returns the counts so far.
    pub fn count_launches(&self, on: bool) -> std::collections::HashMap<&'static str, u64> {
        self.launch_counts.replace(on.then(Default::default)).unwrap_or_default()
    }

    pub fn push(&self, command: Command) {
        if self.is_meta() {
            return;
        }
        let full = {
            let mut recording = self.recording.borrow_mut();
            recording.push(command);
            let commands = recording.commands.len();
            let enough = commands >= IDLE_FLUSH_COMMANDS || recording.work >= IDLE_FLUSH_WORK;
            let gathers = self.profile.kind == Kind::Gpu && recording.work < SMALL_WORK;
            commands >= if gathers { FLUSH_COMMANDS_OF_SMALL_WORK } else { FLUSH_COMMANDS }
                || recording.upload_bytes >= FLUSH_UPLOAD_BYTES
                || (enough && self.profile.kind == Kind::Cpu && self.sink.is_idle())
        };
        if full && !self.batching.get() {
            self.flush();
        }
    }

    /// Submits the waiting commands to the device.
    pub fn flush(&self) {
        let (token, note) = (self.cancel_token.borrow().clone(), self.tracer.note());
        let commands = self.sink.take_list(FLUSH_COMMANDS);
        let next = Recording { commands, token, note, ..Recording::default() };
        let mut recording = self.recording.replace(next);
        recording.owner = self.owner.clone();
        recording.cpu_use = self.cpu_use.get();
        if !recording.is_empty() {
            self.sink.send(recording);
        }
    }

    /// Reads a value back; `reply` is called on the device's thread.
    pub fn read(self: &Rc<Self>, value: &Value, reply: Reply) {
        if self.is_meta() {
            return reply(Err(Error::new(
                crate::error::Code::Option,
                "a tensor on a meta device has no values to read",
            )));
        }
        if let Err(error) = self.load_offloaded([value].into_iter()) {
            return reply(Err(error));
        }
        self.push(Command::Read { from: value.range(), reply });
        self.flush();
    }

    /// Calls `reply` when everything recorded so far has run.
    pub fn fence(&self, reply: Reply) {
        if self.is_meta() {
            return reply(Ok(Vec::new()));
        }
        self.push(Command::Fence { reply });
        self.flush();
    }

    /// Appends a copy of `from`, possibly on another device, to `to`, which is on this device.
    pub fn receive(self: &Rc<Self>, from: &Value, to: &Value) -> Result<()> {
        if from.bytes() == 0 {
            return Ok(());
        }
        if to.storage.is_offloaded() {
            fail!(Option, "copy: an offloaded weight cannot be written; load the model without offloading");
        }
        if Rc::ptr_eq(from.context(), self) {
            self.load_offloaded([from].into_iter())?;
            self.copy(from, to);
            return Ok(());
        }
        if self.is_meta() || from.context().is_meta() {
            if self.is_meta() {
                return Ok(());
            }
            fail!(Option, "to: a tensor on a meta device has no values to move");
        }
        // The sending device answers from its own queue, which does not wait for this one.
        let (send, receive) = std::sync::mpsc::channel();
        from.context().read(from, Box::new(move |bytes| drop(send.send(bytes))));
        self.push(Command::Receive { to: to.range(), from: receive });
        Ok(())
    }

    /// Commands recorded from now on are skipped once `token` is cancelled.
    pub fn set_cancel_token(&self, token: Option<CancelToken>) {
        *self.cancel_token.borrow_mut() = token.clone();
        self.push(Command::SetCancelToken { token, once: false });
    }

    /// Makes the commands that `record` records atomic under cancellation: they run all or not at all. An optimizer
    /// step uses it.
    pub fn run_atomically<T>(&self, record: impl FnOnce() -> Result<T>) -> Result<T> {
        // Cancellation is decided per recording, so nothing is submitted before the end.
        if self.batching.replace(true) {
            return record();
        }
        // Restored even if `record` panics.
        let guard = BatchGuard(&self.batching);
        let token = self.cancel_token.borrow().clone();
        self.push(Command::SetCancelToken { token: token.clone(), once: true });
        let result = record();
        drop(guard);
        self.push(Command::SetCancelToken { token, once: false });
        result
    }

    /// Sets the CPU use of the work recorded after this call.
    pub fn use_cpu(&self, cpu_use: CpuUse) {
        if self.cpu_use.get() != cpu_use {
            self.flush();
            self.cpu_use.set(cpu_use);
        }
    }

    /// Traces everything recorded from now on into `trace`; `None` stops tracing.
    pub fn set_trace(&self, trace: Option<Arc<Trace>>) {
        self.tracer.set(trace);
        self.push(Command::Note(self.tracer.note()));
    }

    /// Attributes the commands of `append` to `operation`, unless an enclosing operation is active.
    pub fn trace_operation<T>(&self, operation: &'static str, pass: Pass, append: impl FnOnce() -> T) -> T {
        let Some(begun) = self.tracer.begin(operation, pass) else { return append() };
        self.push(Command::Note(Some(begun.note())));
        let appended = append();
        self.tracer.end(begun);
        self.push(Command::Note(self.tracer.note()));
        appended
    }

    /// The fastest known of several variants with the same bits; the first if none was measured. `class` is called only
    /// if needed.
    pub fn choose_tuned<F: Copy>(
        &self,
        class: impl FnOnce() -> Class,
        variants: &[F],
        params: impl Fn(&F) -> Params,
    ) -> F {
        match self.sink.table() {
            Some(table) if variants.len() > 1 => {
                variants[table.choose(class(), variants.iter().map(&params))]
            }
            _ => variants[0],
        }
    }

    /// Submissions of the device so far, by all environments; 0 on the CPU.
    pub fn submissions(&self) -> u64 {
        match &self.sink {
            Sink::Thread(device) => device.submissions.load(Ordering::Relaxed),
            Sink::Meta | Sink::Collected(_) => 0,
        }
    }

    /// What the longest submission to its device took so far, of all environments; 0 where it is no GPU.
    pub fn longest_submission(&self) -> Duration {
        match &self.sink {
            Sink::Thread(device) => Duration::from_micros(device.longest_submission.load(Ordering::Relaxed)),
            Sink::Meta | Sink::Collected(_) => Duration::ZERO,
        }
    }

    /// Launches recorded so far.
    pub fn launches(&self) -> u64 {
        self.launches.get()
    }

    /// Floating-point operations of everything recorded so far, as defined by the kernels.
    pub fn work(&self) -> u64 {
        self.work.get()
    }
}

/// Keeps waiting commands together until it is dropped.
struct BatchGuard<'a>(&'a Cell<bool>);

impl Drop for BatchGuard<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.trim();
        let page = self.constants.get_mut().take_page();
        self.release_page(page);
        self.flush();
    }
}
