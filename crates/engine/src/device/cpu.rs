//! The processor: native implementations of the kernels on a pool of threads.

mod memory;
pub mod system;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lowrank_cpu::simd::{self, level};
use lowrank_cpu::threads::{PATIENCE, Threads};

use super::Runner;
use super::poisoned::Buffers;
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::native::NativeLaunch;
use crate::kernel::{BufferId, Range};
use crate::mapped_file::MappedFile;
use crate::profile::{Kind, Profile};
use crate::recording::{Command, CpuUse};
use crate::trace::Note;
use memory::{FreedPages, Memory};

/// A trivial hash for consecutive numbers; a launch looks up about five.
#[derive(Default)]
struct ByNumber(u64);

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("a buffer's id is one number");
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub struct Cpu {
    buffers: HashMap<BufferId, Memory, BuildHasherDefault<ByNumber>>,
    /// Mapped files with buffers, until one is found to have changed.
    files: Vec<Weak<MappedFile>>,
    freed_pages: FreedPages,
    threads: Threads,
    /// Threads at low priority, created by the first background recording. They are separate, since on Linux an
    /// unprivileged process cannot raise a thread's priority again.
    low_threads: Option<Threads>,
    is_low: bool,
    note: Option<Note>,
}

impl Cpu {
    /// Opens the processor with `threads` workers (0: one per core). The calling thread, which is the device's, is one
    /// of them: passing each launch to another thread and waiting for it took a third of the time of a decoded token.
    pub fn open(threads: usize) -> Result<(Profile, Cpu)> {
        simd::level::choose_level().map_err(|unknown| Error::new(Code::Option, unknown.to_string()))?;
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        };
        let workers = Threads::new(threads).map_err(thread_error)?;
        Ok((
            make_profile(threads),
            Cpu {
                buffers: HashMap::default(),
                files: Vec::new(),
                freed_pages: FreedPages::default(),
                threads: workers,
                low_threads: None,
                is_low: false,
                note: None,
            },
        ))
    }

    /// The threads for the current recording.
    fn threads(&self) -> &Threads {
        self.low_threads.as_ref().filter(|_| self.is_low).unwrap_or(&self.threads)
    }

    /// The number of threads for the current recording.
    #[cfg(test)]
    pub fn threads_in_use(&self) -> usize {
        self.threads().count()
    }

    fn pointer(&self, range: &Range) -> *mut u8 {
        self.buffers
            .get(&range.buffer)
            .expect("a recording names a buffer that is not there")
            .pointer_at(range)
    }

    fn slice(&mut self, range: &Range) -> &mut [u8] {
        // SAFETY: `pointer_at` checks that the range is inside the buffer, and only one command runs at any time.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(range), range.bytes as usize) }
    }
}

fn thread_error(error: std::io::Error) -> Error {
    Error::new(Code::Internal, format!("no threads for the cpu device: {error}"))
}

impl Runner for Cpu {
    fn run(&mut self, command: Command) -> Result<()> {
        if !matches!(command, Command::Create { .. } | Command::Destroy { .. } | Command::Reuse { .. }) {
            self.freed_pages.trim();
        }
        let cost = self.note.as_ref().and_then(|note| Some((note, command.cost()?)));
        let _timed = cost.map(|(note, (kernel, cost))| note.start_command(kernel, cost));
        match command {
            Command::Create { buffer, bytes } => {
                let memory = Memory::new(bytes as usize, &mut self.freed_pages).ok_or_else(|| {
                    Error::new(
                        Code::OutOfMemory,
                        format!("out of memory: the system did not allocate {bytes} bytes"),
                    )
                })?;
                self.buffers.insert(buffer, memory);
                self.poison(buffer, bytes);
            }
            Command::Reuse { buffer, bytes } => self.poison(buffer, bytes),
            Command::Destroy { buffer } => {
                if let Some(memory) = self.buffers.remove(&buffer) {
                    self.freed_pages.put(memory);
                }
            }
            Command::Map { buffer, file, offset, bytes } => {
                let known = Arc::downgrade(file.file());
                if !self.files.iter().any(|one| one.ptr_eq(&known)) {
                    self.files.push(known);
                }
                let memory = Memory::Mapped { file, offset: offset as usize, bytes: bytes as usize };
                self.buffers.insert(buffer, memory);
            }
            Command::Unmap { file, reply } => reply(self.unmap(&file).map(|()| Vec::new())),
            Command::Upload { to, bytes } => self.slice(&to).copy_from_slice(&bytes),
            Command::UploadMapped { to, file, offset } => {
                let from = offset as usize;
                self.slice(&to).copy_from_slice(&file[from..from + to.bytes as usize]);
                file.file().check_unchanged()?;
            }
            Command::UploadShared { to, bytes } => self.slice(&to).copy_from_slice(&bytes),
            Command::Zero { to } => self.slice(&to).fill(0),
            // SAFETY: `pointer_at` checks that both ranges are inside their buffers.
            Command::Copy { from, to } => unsafe {
                std::ptr::copy(self.pointer(&from), self.pointer(&to), from.bytes as usize);
            },
            Command::Launch(launch) => {
                let bindings = launch.bindings.iter().map(|range| (self.pointer(range), *range)).collect();
                let given = NativeLaunch::new(&launch, self.threads().count(), bindings);
                let name = launch.kernel.name;
                let native = launch.kernel.implementations.native();
                let native = native.unwrap_or_else(|| panic!("{name} was launched on a processor"));
                self.threads().install(|| native(&given));
            }
            Command::Read { from, reply } => reply(Ok(self.slice(&from).to_vec())),
            Command::Fence { reply } => reply(Ok(Vec::new())),
            Command::Receive { .. } | Command::SetCancelToken { .. } | Command::Note(_) => {}
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        if self.threads().count() > 1 { PATIENCE } else { Duration::ZERO }
    }

    fn idle(&mut self) -> Result<bool> {
        self.freed_pages.clear();
        Ok(false)
    }

    fn take_changed_file(&mut self) -> Option<(Error, Buffers)> {
        let mut changed = None;
        self.files.retain(|file| {
            let Some(file) = file.upgrade() else { return false };
            let error = if changed.is_none() { file.check_unchanged().err() } else { None };
            let keep = error.is_none();
            changed = changed.take().or(error.map(|error| (file, error)));
            keep
        });
        let (file, error) = changed?;
        let buffers: Buffers = self
            .buffers
            .iter()
            .filter(|(_, memory)| matches!(memory, Memory::Mapped { file: lease, .. } if lease.is_in(&file)))
            .map(|(buffer, _)| *buffer)
            .collect();
        (!buffers.is_empty()).then_some((error, buffers))
    }

    fn set_note(&mut self, note: Option<Note>) {
        self.note = note;
    }

    fn use_cpu(&mut self, cpu_use: CpuUse) -> Result<()> {
        let count = cpu_use.count_threads(self.threads.all());
        self.is_low = cpu_use.background;
        if self.is_low && self.low_threads.as_ref().is_none_or(|low| low.all() < count) {
            // This runs on the low-priority thread, which owns them.
            self.low_threads = None;
            self.low_threads =
                Some(Threads::new_named(count, "lowrank-low", system::lower_priority).map_err(thread_error)?);
        }
        self.threads().limit(count);
        Ok(())
    }
}

impl Cpu {
    /// Fills new values with NaN in tests, so that an operation that leaves elements unwritten is noticed.
    fn poison(&mut self, buffer: BufferId, bytes: u64) {
        if cfg!(test) {
            self.slice(&Range { buffer, offset: 0, bytes, dtype: DType::F32 }).fill(0xff);
        }
    }

    /// Copies the parts of `file` that buffers map into memory: all of them, or none if they do not fit.
    fn unmap(&mut self, file: &Arc<MappedFile>) -> Result<()> {
        let of_file = |memory: &Memory| match memory {
            Memory::Mapped { file: lease, bytes, .. } if lease.is_in(file) => Some(*bytes as u64),
            _ => None,
        };
        let mapped: Vec<(BufferId, u64)> =
            self.buffers.iter().filter_map(|(id, memory)| Some((*id, of_file(memory)?))).collect();
        let bytes: u64 = mapped.iter().map(|(_, bytes)| bytes).sum();
        let free = system::read_free_memory().unwrap_or(u64::MAX);
        if bytes > free {
            fail!(
                OutOfMemory,
                "its tensors take {bytes} bytes, and {free} are free; dispose() frees tensors"
            );
        }
        let mut copies = Vec::with_capacity(mapped.len());
        for (buffer, bytes) in mapped {
            let Some(memory) = Memory::new(bytes as usize, &mut self.freed_pages) else {
                fail!(OutOfMemory, "out of memory: the system did not allocate {bytes} bytes");
            };
            let whole = Range { buffer, offset: 0, bytes, dtype: DType::I32 };
            // SAFETY: both have at least `bytes` bytes, and the copy is new, so they do not overlap.
            unsafe {
                std::ptr::copy_nonoverlapping(self.pointer(&whole), memory.pointer_at(&whole), bytes as usize)
            };
            copies.push((buffer, memory));
        }
        self.buffers.extend(copies);
        Ok(())
    }
}

/// The cpu's profile; the same for `meta:cpu`.
pub fn make_profile(threads: usize) -> Profile {
    Profile {
        kind: Kind::Cpu,
        label: "cpu".into(),
        name: system::read_processor_name(),
        backend: level().label().into(),
        software: false,
        subgroup: 0,
        f16: true,
        f16_arithmetic: false,
        binding_limit: u64::MAX,
        buffer_limit: isize::MAX as u64,
        memory: system::read_total_memory(),
        maps_files: true,
        threads,
    }
}
