//! Weights that the host keeps, and that a device has only while their block is used.
//!
//! The first operation that reads a weight of a block uploads that block and the next block in the direction of use, so
//! that the next upload can overlap the block's work. Weights of other blocks return to the pool.
//! All of this is decided when commands are recorded: buffers are reused at once, since commands run first in, first
//! out, and a meta device counts the same memory.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::value::Location;
use super::{Context, Storage, Value};
use crate::dtype::DType;
use crate::error::{Code, Error, Result};
use crate::kernel::{BufferId, Range};
use crate::mapped_file::MappedFile;
use crate::recording::Command;

/// The offloaded weights of a model on one device, by block.
#[derive(Default)]
pub struct Offload {
    blocks: RefCell<Vec<Vec<Weak<Storage>>>>,
    /// The block that was used last.
    current: Cell<Option<usize>>,
    mapped: Cell<u64>,
    copied: Cell<u64>,
}

/// The bytes of an offloaded weight on the host.
pub enum HostBytes {
    Mapped {
        file: Arc<MappedFile>,
        offset: u64,
    },
    Copied(Arc<Vec<u8>>),
    /// A meta device has no values.
    Absent,
}

/// The part of a storage that says where its bytes come from.
pub struct Offloaded {
    offload: Rc<Offload>,
    block: usize,
    source: HostBytes,
    bytes: u64,
    dtype: DType,
    resident: Cell<bool>,
}

impl Offloaded {
    pub(super) fn is_resident(&self) -> bool {
        self.resident.get() || self.bytes == 0
    }

    /// Whether a buffer of the pool has its bytes.
    pub(super) fn is_in_pool(&self) -> bool {
        self.resident.get()
    }

    /// Bytes of host memory, in addition to mapped files.
    pub(super) fn copied_bytes(&self) -> u64 {
        match &self.source {
            HostBytes::Copied(bytes) => bytes.len() as u64,
            HostBytes::Mapped { .. } | HostBytes::Absent => 0,
        }
    }
}

impl Offload {
    /// Bytes of weights that are read from mapped files.
    pub fn mapped_bytes(&self) -> u64 {
        self.mapped.get()
    }

    /// Bytes of weights that were converted or quantised, and are kept in host memory.
    pub fn copied_bytes(&self) -> u64 {
        self.copied.get()
    }

    /// Bytes of weights that are on the device.
    pub fn resident_bytes(&self) -> u64 {
        let blocks = self.blocks.borrow();
        let weights = blocks.iter().flatten().filter_map(Weak::upgrade);
        let in_pool = |weight: &Rc<Storage>| matches!(&weight.location, Location::Offloaded(location) if location.is_in_pool());
        weights.filter(in_pool).map(|weight| weight.bytes()).sum()
    }

    fn add(&self, block: usize, storage: &Rc<Storage>) {
        let mut blocks = self.blocks.borrow_mut();
        if blocks.len() <= block {
            blocks.resize_with(block + 1, Vec::new);
        }
        blocks[block].push(Rc::downgrade(storage));
    }

    /// The weights of a block that still exist.
    fn weights(&self, block: usize) -> Vec<Rc<Storage>> {
        self.blocks.borrow().get(block).into_iter().flatten().filter_map(Weak::upgrade).collect()
    }

    /// Makes `block` and the next one resident, and no other.
    fn use_block(&self, cx: &Rc<Context>, block: usize) -> Result<()> {
        let last = self.blocks.borrow().len() - 1;
        let backward = self.current.replace(Some(block)).is_some_and(|before| block + 1 == before);
        // At either end the direction turns: backward follows forward, and the next step follows backward.
        let next = match (backward && block > 0) || block == last {
            true => block.saturating_sub(1),
            false => block + 1,
        };
        for other in (0..=last).filter(|other| *other != block && *other != next) {
            self.weights(other).iter().for_each(|weight| weight.evict());
        }
        for near in [block, next] {
            for weight in self.weights(near) {
                cx.make_resident(&weight)?;
            }
        }
        if !cx.batching.get() {
            cx.flush();
        }
        Ok(())
    }
}

impl Storage {
    /// Returns the buffer to the pool. Recorded commands run before its next use.
    fn evict(&self) {
        if let Location::Offloaded(offloaded) = &self.location
            && offloaded.resident.replace(false)
        {
            self.context.return_to_pool(self.buffer.get(), self.bytes());
        }
    }
}

impl Context {
    /// Creates a frozen value on this device that is uploaded whenever `block` of `offload` is used. `from`, on the
    /// CPU, has its bytes. A mapped file is read at each upload; other bytes are copied into host memory once.
    ///
    /// # Errors
    /// As for `empty`, except that memory is allocated later; errors of reading `from`.
    pub fn offload(self: &Rc<Self>, from: &Value, offload: &Rc<Offload>, block: usize) -> Result<Value> {
        self.check_value(&from.shape, from.dtype)?;
        let bytes = from.bytes() as u64;
        let source = match &from.storage.location {
            Location::InFile { file, offset } if from.offset == 0 && !file.is_released() => {
                HostBytes::Mapped { file: file.clone(), offset: *offset }
            }
            _ if self.is_meta() => HostBytes::Absent,
            _ => HostBytes::Copied(Arc::new(read_now(from)?)),
        };
        let total =
            if matches!(source, HostBytes::Mapped { .. }) { &offload.mapped } else { &offload.copied };
        total.set(total.get() + bytes);
        let (offloaded, dtype, resident) = (offload.clone(), from.dtype, Cell::new(false));
        let location =
            Location::Offloaded(Offloaded { offload: offloaded, block, source, bytes, dtype, resident });
        let storage = Storage::new(self, BufferId::next(), bytes.next_multiple_of(4), location);
        offload.add(block, &storage);
        Ok(Value { shape: from.shape.clone(), dtype: from.dtype, storage, offset: 0 })
    }

    /// Uploads the blocks of the offloaded weights among `values`. Every reader of a value calls it before
    /// it records its commands.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`; `ERR_FILE_NOT_FOUND` if the file was unmapped, because it was replaced.
    pub fn load_offloaded<'a>(
        self: &Rc<Self>,
        values: impl Iterator<Item = &'a Value> + Clone,
    ) -> Result<()> {
        let offloaded = values.filter_map(|value| match &value.storage.location {
            Location::Offloaded(offloaded) => Some((offloaded, &value.storage)),
            _ => None,
        });
        for (Offloaded { offload, block, resident, .. }, _) in offloaded.clone() {
            if !resident.get() || offload.current.get() != Some(*block) {
                offload.use_block(self, *block)?;
            }
        }
        // An operation that reads distant blocks: entering the last block has evicted the weights of the others.
        for (_, storage) in offloaded {
            self.make_resident(storage)?;
        }
        Ok(())
    }

    fn make_resident(self: &Rc<Self>, storage: &Rc<Storage>) -> Result<()> {
        let Location::Offloaded(Offloaded { source, bytes, dtype, resident, .. }) = &storage.location else {
            return Ok(());
        };
        if resident.get() || *bytes == 0 {
            return Ok(());
        }
        let buffer = self.allocate_buffer(storage.bytes())?;
        storage.buffer.set(buffer);
        resident.set(true);
        let to = Range { buffer, offset: 0, bytes: *bytes, dtype: *dtype };
        match source {
            HostBytes::Mapped { file, offset } => file.lend(self.sink.borrower(), |file| {
                self.push(Command::UploadMapped { to, file, offset: *offset });
            })?,
            HostBytes::Copied(bytes) => self.push(Command::UploadShared { to, bytes: bytes.clone() }),
            HostBytes::Absent => {}
        }
        Ok(())
    }
}

/// The bytes of a value, once its device has computed them.
fn read_now(value: &Value) -> Result<Vec<u8>> {
    let (send, receive) = channel();
    value.context().read(value, Box::new(move |bytes| drop(send.send(bytes))));
    receive.recv().unwrap_or_else(|_| Err(Error::new(Code::DeviceLost, "the device of a weight has gone")))
}
