//! Buffers of the pool, and this device's scratch buffers.

use super::Gpu;
use super::fault::catch_errors;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::{BufferId, Range};

/// The scratch slot for copies; the later slots serve the bindings of a launch.
pub const COPY_SCRATCH: usize = 0;
/// The most bytes of destroyed buffers that may wait for the GPU.
const MAX_DESTROYED_BYTES: u64 = 64 << 20;

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Gpu {
    pub(super) fn create(&mut self, id: BufferId, bytes: u64) -> Result<()> {
        if bytes > self.limits.max_buffer_size {
            fail!(
                OutOfMemory,
                "a buffer of {bytes} bytes is more than this GPU's {} at most",
                self.limits.max_buffer_size
            );
        }
        // Destroyed buffers use memory until the GPU is done, so bound them.
        if self.destroyed_bytes > MAX_DESTROYED_BYTES {
            self.drain()?;
        }
        let size = bytes.next_multiple_of(4).max(4);
        let buffer = match self.new_buffer(size, USAGE, false) {
            Err(error) if error.code == Code::OutOfMemory => {
                self.drain()?;
                self.new_buffer(size, USAGE, false)
            }
            result => result,
        };
        let message = format!(
            "out of GPU memory: it did not allocate {bytes} bytes; {} buffers are open",
            self.buffers.len()
        );
        let buffer = buffer.map_err(|e| match e.code {
            Code::OutOfMemory => Error::new(Code::OutOfMemory, message),
            _ => e,
        })?;
        self.buffers.insert(id, buffer);
        Ok(())
    }

    pub(super) fn destroy(&mut self, id: BufferId) {
        if let Some(buffer) = self.buffers.remove(&id) {
            self.destroyed_bytes += buffer.size();
            self.destroyed.insert(id);
        }
    }

    pub(super) fn new_buffer(
        &self,
        size: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer> {
        catch_errors(&self.device, "a buffer", || {
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: mapped };
            self.device.create_buffer(&descriptor)
        })
    }

    /// Returns the buffer of a range after checking that the range is inside it.
    pub(super) fn find_buffer(&self, range: &Range) -> Result<wgpu::Buffer> {
        match self.buffers.get(&range.buffer) {
            Some(buffer) if range.offset + range.bytes <= buffer.size() => Ok(buffer.clone()),
            Some(buffer) => {
                fail!(Internal, "{} bytes at {} of a buffer of {}", range.bytes, range.offset, buffer.size())
            }
            None => fail!(Internal, "a recording names a buffer that is not there"),
        }
    }

    /// Returns a scratch buffer of at least `bytes`; its content is valid until its next use.
    pub(super) fn get_scratch(&mut self, slot: usize, bytes: u64) -> Result<BufferId> {
        self.scratch.resize((slot + 1).max(self.scratch.len()), None);
        if let Some(id) = self.scratch[slot] {
            if self.buffers.get(&id).is_some_and(|b| b.size() >= bytes) {
                return Ok(id);
            }
            self.destroy(id);
        }
        let id = BufferId::next();
        self.create(id, crate::pool::size_class(bytes, self.limits.max_buffer_size))?;
        self.scratch[slot] = Some(id);
        Ok(id)
    }
}
