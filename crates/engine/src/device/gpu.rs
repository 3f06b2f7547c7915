//! A GPU through wgpu: Vulkan, Metal or DX12.
//!
//! Commands run in order: copies, uploads and dispatches are encoded into one command list and submitted in bounded
//! portions; replies are sent when their portion is complete. The memory of this device in addition to the pool's
//! buffers is bounded: 16 MiB of staging pages for uploads, 32 MiB for reads (almost none when idle), and scratch for
//! the few copies that need it.

mod adapter;
mod buffers;
mod canary;
pub mod compiler;
mod details;
mod fault;
mod launch;
mod pipeline;
mod read;
mod submit;
#[cfg(test)]
mod tests;
mod timing;
mod transfer;
mod trials;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use adapter::{AdapterInfo, AdapterKind, list_adapters, list_details, read_profile};
use canary::Canary;
pub use details::Details;
use fault::Faults;
use launch::{BindGroupKey, Span};
use pipeline::Pipelines;
use read::Pending;
use submit::Submitter;
use transfer::Staging;
use trials::Trials;

use super::Runner;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::BufferId;
use crate::profile::Profile;
use crate::recording::Command;
use crate::trace::Note;
use crate::tune::{Owner, Setting, Store, Table};

/// How long `idle` waits before the thread checks for new work.
const NAP: Duration = Duration::from_micros(500);

/// The most descriptors in use at once: the bind groups in the cache, and evicted ones that launches in flight still use.
/// DX12 allocates this many when a device opens; the adapter's limit is a million.
fn count_descriptors() -> u32 {
    // A kernel binds at most as many buffers as WebGPU guarantees.
    let bindings = wgpu::Limits::default().max_storage_buffers_per_shader_stage;
    (bindings * (launch::MAX_BIND_GROUPS + submit::MAX_LAUNCHES) as u32).next_power_of_two()
}

/// Runs commands on a GPU; created and used on its device's thread.
pub struct Gpu {
    submitter: Submitter,
    pending: VecDeque<Pending>,
    /// Bytes of the buffers of pending reads.
    reading: u64,
    read_buffers: Vec<wgpu::Buffer>,
    staging: Staging,
    pipelines: Pipelines,
    bind_groups: HashMap<BindGroupKey, wgpu::BindGroup>,
    buffers: HashMap<BufferId, wgpu::Buffer>,
    scratch: Vec<Option<BufferId>>,
    /// Destroyed buffers that cached bind groups may still refer to.
    destroyed: HashSet<BufferId>,
    destroyed_bytes: u64,
    binding_limit: u64,
    limits: wgpu::Limits,
    faults: Faults,
    canary: Canary,
    /// A range that the last launch since the last submission wrote.
    written: Option<Span>,
    trials: Option<Trials>,
    /// Whether launches belong to an autotuning trial, which is timed as a whole and chooses its length.
    in_trial: bool,
    /// Whether encoded work has already waited one nap for more.
    has_napped: bool,
    device: wgpu::Device,
}

impl Gpu {
    /// Opens GPU number `index` of `list_adapters()`, or by default the first usable one (software GPUs last). Call it
    /// on the device's thread, from `Device::start`.
    ///
    /// `LOWRANK_SHADER_CHECKS=1` enables bounds checks in shaders; `LOWRANK_TUNE` controls autotuning.
    ///
    /// # Errors
    /// `ERR_NO_GPU` with the list of adapters if there is no such adapter; `ERR_OPTION` for an invalid `LOWRANK_TUNE`.
    pub fn open(index: Option<usize>) -> Result<(Profile, Gpu)> {
        Self::open_with(index, None)
    }

    /// Like `open`, with a lower limit on the bytes of one binding (at least 256), to test windows on small tensors.
    /// The default is `LOWRANK_BINDING_LIMIT`.
    ///
    /// # Errors
    /// As for `open`.
    pub fn open_with(index: Option<usize>, binding_limit: Option<u64>) -> Result<(Profile, Gpu)> {
        let setting = Setting::from_environment()?;
        let (profile, mut gpu, owner) = Self::open_untuned(index, binding_limit)?;
        if setting != Setting::Off {
            gpu.enable_tuning(&profile, setting.is_on(profile.software), Store::open(owner));
        }
        Ok((profile, gpu))
    }

    /// Enables autotuning: of the classes in recorded work if `background`, and of requested classes.
    fn enable_tuning(&mut self, profile: &Profile, background: bool, store: Option<Store>) {
        let device = format!("{} ({})", profile.name, profile.backend);
        let table = Arc::new(Table::new(device, background, store));
        self.trials = Some(Trials::new(profile.clone(), table));
    }

    /// Opens a GPU without autotuning; also returns the cache key that its results would have.
    fn open_untuned(index: Option<usize>, binding_limit: Option<u64>) -> Result<(Profile, Gpu, Owner)> {
        let (profile, adapter) = adapter::choose(index, binding_limit)?;
        let owner = Owner {
            adapter: format!("{} {}", profile.name, profile.backend),
            driver: adapter::format_driver(&adapter.get_info()),
            package: env!("CARGO_PKG_VERSION").into(),
        };
        let optional = wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16;
        let mut limits = adapter.limits();
        limits.max_non_sampler_bindings = limits.max_non_sampler_bindings.min(count_descriptors());
        let request = wgpu::DeviceDescriptor {
            label: Some("lowrank"),
            required_features: wgpu::Features::IMMEDIATES | (adapter.features() & optional),
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&request)).map_err(|e| {
            Error::new(Code::NoGpu, format!("{} ({}) does not open: {e}", profile.name, profile.backend))
        })?;
        let watchdog = details::find_watchdog(&adapter.get_info());
        let faults = Faults::default();
        faults.register(&device);
        let checks = std::env::var("LOWRANK_SHADER_CHECKS").is_ok_and(|v| v == "1");
        let gpu = Gpu {
            submitter: Submitter::new(device.clone(), queue, faults.clone(), watchdog),
            pending: VecDeque::new(),
            reading: 0,
            read_buffers: Vec::new(),
            staging: Staging::default(),
            pipelines: Pipelines::new(device.clone(), checks, adapter::name_compiler(&adapter)),
            bind_groups: HashMap::new(),
            buffers: HashMap::new(),
            scratch: Vec::new(),
            destroyed: HashSet::new(),
            destroyed_bytes: 0,
            binding_limit: profile.binding_limit,
            limits,
            canary: Canary::new(&device),
            written: None,
            faults,
            trials: None,
            in_trial: false,
            has_napped: false,
            device,
        };
        Ok((profile, gpu, owner))
    }

    fn execute(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Create { buffer, bytes } => self.create(buffer, bytes),
            Command::Destroy { buffer } => {
                self.destroy(buffer);
                Ok(())
            }
            Command::Map { .. } => fail!(Internal, "a GPU maps no files"),
            // Uploads from a mapped file are copied when they run, so nothing refers to the file.
            Command::Unmap { reply, .. } => {
                reply(Ok(Vec::new()));
                Ok(())
            }
            Command::Upload { to, bytes } => self.upload(&to, &bytes),
            Command::UploadMapped { to, file, offset } => {
                let (start, bytes) = (offset as usize, to.bytes as usize);
                match file.get(start..).and_then(|rest| rest.get(..bytes)) {
                    Some(bytes) => {
                        self.upload(&to, bytes)?;
                        file.file().check_unchanged()
                    }
                    None => fail!(FileFormat, "a file of {} bytes has none at {start}", file.len()),
                }
            }
            Command::UploadShared { to, bytes } => self.upload(&to, &bytes),
            Command::Zero { to } => self.zero(&to),
            Command::Copy { from, to } => self.copy(&from, &to),
            Command::Launch(launch) => self.launch(&launch),
            Command::Read { from, reply } => self.read(&from, reply),
            Command::Fence { reply } => {
                self.fence(reply);
                Ok(())
            }
            // The thread's loop handles these.
            Command::Reuse { .. }
            | Command::SetCancelToken { .. }
            | Command::Receive { .. }
            | Command::Note(_) => Ok(()),
        }
    }

    /// Counts an encoded command; submits once the budget is used.
    fn count(&mut self, work: u64) -> Result<()> {
        if self.submitter.count(work) { self.submit() } else { Ok(()) }
    }

    fn submit(&mut self) -> Result<()> {
        // Before the submission: bind groups dropped after it would live until the next one.
        if !self.destroyed.is_empty() {
            let destroyed = std::mem::take(&mut self.destroyed);
            self.bind_groups.retain(|key, _| !key.spans.iter().any(|s| destroyed.contains(&s.buffer)));
        }
        if !self.submitter.has_commands() {
            self.submitter.poll()?;
            self.send_replies();
            return Ok(());
        }
        self.seal();
        self.staging.before_submit();
        self.submitter.submit()?;
        self.staging.after_submit();
        self.request_maps();
        self.send_replies();
        Ok(())
    }

    /// Waits for all work, so that destroyed buffers are freed.
    fn drain(&mut self) -> Result<()> {
        self.submit()?;
        self.submitter.drain()?;
        self.destroyed_bytes = 0;
        self.send_replies();
        Ok(())
    }
}

impl Runner for Gpu {
    fn prepare(&mut self, commands: &[Command]) -> Result<()> {
        self.pipelines.compile_ahead(commands.iter().filter_map(|command| match command {
            Command::Launch(launch) => Some(launch),
            _ => None,
        }));
        Ok(())
    }

    fn run(&mut self, command: Command) -> Result<()> {
        self.has_napped = false;
        let result = self.execute(command).and_then(|()| self.faults.check());
        if let Err(fault) = self.faults.check() {
            self.reject(&fault);
        }
        result
    }

    fn set_note(&mut self, note: Option<Note>) {
        self.submitter.set_note(note);
    }

    fn free_idle_memory(&mut self) -> Result<()> {
        self.free_caches()
    }

    fn table(&self) -> Option<Arc<Table>> {
        self.trials.as_ref().map(|trials| trials.table.clone())
    }

    fn tune(&mut self) -> Result<bool> {
        self.run_trial_step()
    }

    fn submissions(&self) -> Arc<AtomicU64> {
        self.submitter.submissions()
    }

    fn longest_submission(&self) -> Arc<AtomicU64> {
        self.submitter.longest()
    }

    fn idle(&mut self) -> Result<bool> {
        // While the GPU is busy, batch the work that arrives within a nap, since a token or a step is recorded in
        // parts. Work with a pending read or fence is submitted at once.
        let waits = self.submitter.is_busy()
            && self.submitter.has_commands()
            && !self.has_napped
            && !self.has_unsubmitted_reply();
        self.has_napped = waits;
        let submitted = if waits { Ok(()) } else { self.submit() };
        let polled = submitted.and_then(|()| self.submitter.wait_for_oldest(NAP));
        self.send_replies();
        if let Err(fault) = polled.and_then(|()| self.faults.check()) {
            self.reject(&fault);
            return Err(fault);
        }
        let busy = self.submitter.is_busy() || self.submitter.has_commands() || !self.pending.is_empty();
        if !busy {
            self.destroyed_bytes = 0;
            self.staging.trim();
            self.trim_reads();
        }
        Ok(busy)
    }
}

impl Gpu {
    fn free_caches(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.scratch).into_iter().flatten() {
            self.destroy(id);
        }
        self.drain()?;
        self.bind_groups.clear();
        self.staging.clear();
        self.read_buffers.clear();
        // wgpu frees dropped objects at the next poll.
        self.submitter.poll()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if let Some(trials) = &self.trials {
            trials.table.save();
        }
        self.reject(&Error::new(Code::Aborted, "the device has been stopped"));
    }
}
