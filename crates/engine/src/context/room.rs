//! A context's memory use, and the check that more fits.

use std::rc::Rc;
use std::sync::Arc;

use super::Context;
use crate::device::read_free_memory;
use crate::error::Result;
use crate::fail;
use crate::kernel::BufferId;
use crate::mapped_file::MappedFile;
use crate::recording::Command;

/// Bytes of a device in use, as `memory()` reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub live: u64,
    pub reserved: u64,
    pub peak: u64,
    pub mapped: u64,
}

impl Context {
    /// Returns an error if `bytes` do not fit in addition to the memory in use. Idle buffers are freed first.
    pub fn check_fits(&self, bytes: u64) -> Result<()> {
        self.count_copied();
        let in_use = self.pool.borrow().live_classes();
        let free = self.profile.memory.saturating_sub(in_use);
        if bytes <= free {
            return Ok(());
        }
        fail!(
            OutOfMemory,
            "{bytes} bytes are asked for, and {free} are free on {}: {in_use} of {} are in use here; scope() and \
             dispose() free tensors",
            self.profile.name,
            self.profile.memory
        );
    }

    /// Accounts for values that the device copied out of mapped files.
    fn count_copied(&self) {
        if self.is_meta() {
            return;
        }
        let bytes = self.file_uses.borrow_mut().take_copied();
        if bytes > 0 {
            self.pool.borrow_mut().count_held(bytes);
            self.known_free.set(0);
        }
    }

    /// Returns a buffer of `bytes` to the pool.
    pub(crate) fn return_to_pool(&self, buffer: BufferId, bytes: u64) {
        self.pool.borrow_mut().free(buffer, bytes);
    }

    /// Accounts for a dropped value in a file.
    pub(crate) fn remove_from_file(&self, file: &Arc<MappedFile>, bytes: u64) {
        let copied = self.file_uses.borrow_mut().remove(file, bytes);
        if copied {
            self.pool.borrow_mut().uncount_held(bytes);
        }
    }

    /// Sets the function that is called when memory is short, before that is an error.
    pub fn on_shortage(&self, release: impl Fn() + 'static) {
        *self.shortage.borrow_mut() = Some(Rc::new(release));
    }

    /// Returns an error for a buffer of `class` bytes if the device, or the system, lacks the memory.
    pub(super) fn make_room(&self, class: u64) -> Result<()> {
        if self.check_memory(class).is_ok() {
            return Ok(());
        }
        // Called without a borrow, since the tensors that it drops return to the pool.
        let release = self.shortage.borrow().clone();
        if let Some(release) = release {
            release();
        }
        self.check_memory(class)
    }

    fn check_memory(&self, class: u64) -> Result<()> {
        self.check_fits(class)?;
        let known_free = self.known_free.get();
        if self.is_meta() || self.pool.borrow().has_idle(class) {
            return Ok(());
        }
        if class <= known_free {
            self.known_free.set(known_free - class);
            return Ok(());
        }
        let Some(free) = read_free_memory(&self.profile) else { return Ok(()) };
        if class <= free {
            // Recorded allocations have not been made yet.
            self.known_free.set((free - class) / 8);
            return Ok(());
        }
        // Idle buffers may be the memory that is missing.
        let idle = self.trim();
        if class <= free + idle {
            return Ok(());
        }
        let in_use = self.pool.borrow().live_classes();
        fail!(
            OutOfMemory,
            "{class} bytes are asked for, and {} are free on {} ({in_use} are in use here); scope() and dispose() \
             free tensors",
            free + idle,
            self.profile.name
        );
    }

    pub fn memory(&self) -> Memory {
        self.count_copied();
        let mapped = self.file_uses.borrow().mapped_bytes();
        let pool = self.pool.borrow();
        Memory { live: pool.live(), reserved: pool.reserved_bytes(), peak: pool.peak(), mapped }
    }

    /// The peak of live bytes since `restart_peak`.
    pub fn highest_live(&self) -> u64 {
        self.count_copied();
        self.pool.borrow().highest_live()
    }

    /// Frees idle buffers at once; returns their bytes.
    pub fn trim(&self) -> u64 {
        let (buffers, bytes) = self.pool.borrow_mut().drain();
        for buffer in buffers {
            self.push(Command::Destroy { buffer });
        }
        if bytes > 0 {
            self.flush();
        }
        bytes
    }

    /// Resets the peak to the live bytes, after `trim`.
    pub fn restart_peak(&self) {
        self.trim();
        self.pool.borrow_mut().reset_peak();
    }
}
