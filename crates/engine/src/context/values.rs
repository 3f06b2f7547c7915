//! Creation of values: from the pool, from bytes, as constants on shared pages, or over mapped files.

use std::rc::Rc;
use std::sync::Arc;

use super::constants::{ConstantSlot, PAGE_BYTES, Page};
use super::value::Location;
use super::{Context, Storage, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::BufferId;
use crate::mapped_file::MappedFile;
use crate::recording::{Command, Recording};
use crate::shape::Shape;

/// Kernels count elements in words of 32 bits, on every device.
const MAX_ELEMENTS: usize = u32::MAX as usize;

fn check_countable(shape: &Shape) -> Result<()> {
    let size = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if size.is_none_or(|size| size > MAX_ELEMENTS) {
        fail!(
            OutOfMemory,
            "a tensor of shape {shape} has more than {MAX_ELEMENTS} elements, the most that kernels count: make it in parts"
        );
    }
    Ok(())
}

impl Context {
    /// Allocates the storage of a new value. Its content is unspecified.
    pub fn allocate(self: &Rc<Self>, bytes: usize) -> Result<Rc<Storage>> {
        let buffer = self.allocate_buffer(bytes as u64)?;
        Ok(Storage::new(self, buffer, bytes as u64, Location::InPool))
    }

    /// Takes a buffer from the pool.
    pub(super) fn allocate_buffer(&self, bytes: u64) -> Result<BufferId> {
        let class = self.pool.borrow().size_class(bytes);
        if class > self.profile.buffer_limit {
            fail!(
                OutOfMemory,
                "a tensor of {bytes} bytes is larger than a buffer of {} may be ({} bytes)",
                self.profile.name,
                self.profile.buffer_limit
            );
        }
        self.make_room(class)?;
        let allocation = self.pool.borrow_mut().allocate(bytes);
        for buffer in allocation.destroyed {
            self.push(Command::Destroy { buffer });
        }
        let buffer = allocation.buffer;
        self.push(match allocation.create {
            true => Command::Create { buffer, bytes: class },
            false => Command::Reuse { buffer, bytes: class },
        });
        Ok(buffer)
    }

    /// Allocates a value with unspecified content.
    ///
    /// # Errors
    /// `ERR_OUT_OF_MEMORY`; `ERR_DTYPE` for f16 on a GPU whose driver cannot convert it.
    pub fn empty(self: &Rc<Self>, shape: impl Into<Shape>, dtype: DType) -> Result<Value> {
        let shape = shape.into();
        self.check_value(&shape, dtype)?;
        let bytes = dtype.byte_size(shape.size());
        let storage = self.allocate(bytes.div_ceil(4) * 4)?;
        Ok(Value { shape, dtype, storage, offset: 0 })
    }

    /// Returns an error if this device cannot store such a value.
    pub(super) fn check_value(&self, shape: &Shape, dtype: DType) -> Result<()> {
        if (dtype == DType::F16 || dtype.is_block()) && !self.profile.f16 {
            fail!(
                Dtype,
                "{} ({}) computes with no f16, which scales of blocks are, too: its driver lacks conversions from it (SHADER_F16_IN_F32); use f32 or \
                 bf16, or the cpu",
                self.profile.name,
                self.profile.backend
            );
        }
        check_countable(shape)?;
        if !dtype.divides(shape) {
            fail!(
                Dtype,
                "a tensor of shape {shape} has rows of {}, which are no whole blocks of {dtype}: they are of {} elements",
                shape.last(),
                dtype.unit()
            );
        }
        Ok(())
    }

    /// Creates a value from `bytes`, row-major.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` if the length does not match the shape.
    pub fn upload(self: &Rc<Self>, shape: impl Into<Shape>, dtype: DType, bytes: Vec<u8>) -> Result<Value> {
        let value = self.empty(shape, dtype)?;
        if bytes.len() != value.bytes() {
            fail!(
                ShapeMismatch,
                "tensor: shape {} takes {} values, {} were given",
                value.shape,
                value.shape.size(),
                bytes.len() * value.size() / value.bytes().max(1)
            );
        }
        if dtype == DType::I32 {
            let host: Rc<[i32]> = bytemuck::pod_collect_to_vec::<u8, i32>(&bytes).into();
            *value.storage.host.borrow_mut() = Some(host);
        }
        self.write(&value, bytes);
        Ok(value)
    }

    /// A cached scalar, which outlives its users. It does not count as memory in use: it is four bytes of a shared
    /// buffer.
    pub fn constant(self: &Rc<Self>, value: f32) -> Value {
        self.constant_word(DType::F32, value.to_bits())
    }

    /// As for `constant`, in i32.
    pub fn constant_i32(self: &Rc<Self>, value: i32) -> Value {
        self.constant_word(DType::I32, value as u32)
    }

    fn constant_word(self: &Rc<Self>, dtype: DType, word: u32) -> Value {
        let ConstantSlot { page, slot, is_new, first, full } =
            self.constants.borrow_mut().allocate_slot(word);
        self.release_page(full);
        if first {
            self.push(Command::Create { buffer: page.0, bytes: PAGE_BYTES });
        }
        let storage = Storage::new(self, page.0, PAGE_BYTES, Location::OnPage(page));
        let constant = Value { shape: Shape::new(&[]), dtype, storage, offset: slot };
        if is_new {
            self.write(&constant, word.to_le_bytes().to_vec());
        }
        constant
    }

    /// Creates a frozen value over the bytes of a mapped file: in place on the CPU if `offset` is aligned to the dtype,
    /// otherwise, and for a file in memory, uploaded from it.
    ///
    /// The read is submitted at once, so that all environments can unmap the file.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND` once the file was unmapped, `ERR_OUT_OF_MEMORY`.
    pub fn map(
        self: &Rc<Self>,
        shape: impl Into<Shape>,
        dtype: DType,
        file: &Arc<MappedFile>,
        offset: u64,
    ) -> Result<Value> {
        let shape = shape.into();
        check_countable(&shape)?;
        let bytes = dtype.byte_size(shape.size()) as u64;
        // A map starts on a page, and blocks are read byte by byte.
        let aligned = dtype.is_block() || offset.is_multiple_of(dtype.bytes() as u64);
        if self.profile.maps_files && aligned && !file.is_in_memory() {
            let buffer = BufferId::next();
            file.lend(self.sink.borrower(), |file| {
                let commands = vec![Command::Map { buffer, file, offset, bytes }];
                let owner = self.owner.clone();
                let cpu_use = self.cpu_use.get();
                self.sink.send(Recording { commands, owner, cpu_use, ..Recording::default() });
            })?;
            self.file_uses.borrow_mut().add(file, bytes);
            let storage = Storage::new(self, buffer, bytes, Location::InFile { file: file.clone(), offset });
            return Ok(Value { shape, dtype, storage, offset: 0 });
        }
        let value = self.empty(shape, dtype)?;
        if bytes > 0 {
            file.lend(self.sink.borrower(), |file| {
                self.push(Command::UploadMapped { to: value.range(), file, offset });
                if !self.batching.get() {
                    self.flush();
                }
            })?;
        }
        Ok(value)
    }

    pub(crate) fn release_page(&self, page: Option<Rc<Page>>) {
        if let Some(page) = page.and_then(Rc::into_inner) {
            self.push(Command::Destroy { buffer: page.0 });
        }
    }
}
