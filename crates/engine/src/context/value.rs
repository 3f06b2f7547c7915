//! Values: a shape and a dtype over a range of a storage.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::Context;
use super::constants::Page;
use super::offload::Offloaded;
use crate::dtype::DType;
use crate::kernel::{BufferId, Range};
use crate::mapped_file::MappedFile;
use crate::recording::Command;
use crate::shape::Shape;

/// A buffer in use; it returns to the pool when the last handle is dropped.
pub struct Storage {
    pub context: Rc<Context>,
    /// Changes with each upload of an offloaded weight.
    pub(super) buffer: Cell<BufferId>,
    bytes: u64,
    pub(super) location: Location,
    version: Cell<u64>,
    /// The host's copy of an i32 tensor that JavaScript made; plans may read it.
    pub host: RefCell<Option<Rc<[i32]>>>,
}

/// The location of a storage's bytes, which decides how they are freed.
pub(super) enum Location {
    InPool,
    InFile {
        file: Arc<MappedFile>,
        offset: u64,
    },
    /// On a page of constants.
    OnPage(Rc<Page>),
    /// On the host, and in a buffer of the pool while its block is used.
    Offloaded(Offloaded),
}

impl Storage {
    pub(super) fn new(
        context: &Rc<Context>,
        buffer: BufferId,
        bytes: u64,
        location: Location,
    ) -> Rc<Storage> {
        let (version, host) = (Cell::new(0), RefCell::new(None));
        let buffer = Cell::new(buffer);
        Rc::new(Storage { context: context.clone(), buffer, bytes, location, version, host })
    }

    /// The buffer that has its bytes.
    ///
    /// # Panics
    /// If it is an offloaded weight that `load_offloaded` has not uploaded.
    pub fn buffer(&self) -> BufferId {
        if let Location::Offloaded(offloaded) = &self.location {
            assert!(offloaded.is_resident(), "an offloaded weight is read and was not uploaded");
        }
        self.buffer.get()
    }

    /// Whether the host keeps its bytes, so that it cannot be written in place.
    pub fn is_offloaded(&self) -> bool {
        matches!(self.location, Location::Offloaded(_))
    }

    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Records a write in place, which invalidates what backward saved.
    pub fn record_write(&self) {
        self.version.set(self.version.get() + 1);
        *self.host.borrow_mut() = None;
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory that are freed when it is dropped.
    pub fn owned_bytes(&self) -> u64 {
        match &self.location {
            Location::InPool => self.bytes,
            Location::InFile { file, .. } if file.is_released() => self.bytes,
            Location::InFile { .. } | Location::OnPage(_) => 0,
            Location::Offloaded(offloaded) => offloaded.copied_bytes(),
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.location, Location::InPool) {
            Location::InPool => self.context.return_to_pool(self.buffer.get(), self.bytes),
            Location::InFile { file, .. } => {
                self.context.remove_from_file(&file, self.bytes);
                self.context.push(Command::Destroy { buffer: self.buffer.get() });
            }
            Location::OnPage(page) => self.context.release_page(Some(page)),
            Location::Offloaded(offloaded) if offloaded.is_in_pool() => {
                self.context.return_to_pool(self.buffer.get(), self.bytes);
            }
            Location::Offloaded(_) => {}
        }
    }
}

/// A contiguous, row-major array: a range of a storage. It carries no gradient.
#[derive(Clone)]
pub struct Value {
    pub shape: Shape,
    pub dtype: DType,
    pub storage: Rc<Storage>,
    /// Elements from the storage's start.
    pub offset: usize,
}

impl Value {
    pub fn context(&self) -> &Rc<Context> {
        &self.storage.context
    }

    pub fn size(&self) -> usize {
        self.shape.size()
    }

    pub fn bytes(&self) -> usize {
        self.dtype.byte_size(self.size())
    }

    pub fn spec(&self) -> Spec {
        Spec { shape: self.shape.clone(), dtype: self.dtype }
    }

    pub fn range(&self) -> Range {
        self.part(0, self.size())
    }

    /// `count` elements from `start` on; for blocks, the whole blocks that contain them.
    pub fn part(&self, start: usize, count: usize) -> Range {
        let (dtype, unit) = (self.dtype, self.dtype.unit());
        let (first, end) = ((self.offset + start) / unit * unit, self.offset + start + count);
        Range {
            buffer: self.storage.buffer(),
            offset: dtype.byte_size(first) as u64,
            bytes: dtype.byte_size(end.next_multiple_of(unit) - first) as u64,
            dtype: self.dtype,
        }
    }

    /// The same elements under another shape of equal size.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Value {
        let shape = shape.into();
        assert_eq!(shape.size(), self.size());
        Value { shape, ..self.clone() }
    }

    /// A range of the same storage as a separate value; for the documented exceptions only.
    pub fn sub_range(&self, start: usize, shape: impl Into<Shape>) -> Value {
        Value { shape: shape.into(), offset: self.offset + start, ..self.clone() }
    }

    /// Whether no other handle reads this storage, so that it may be written in place.
    pub fn is_unshared(&self) -> bool {
        let fixed = matches!(self.storage.location, Location::OnPage(_) | Location::Offloaded(_));
        Rc::strong_count(&self.storage) == 1 && !fixed
    }

    /// The host's copy of an i32 value that JavaScript made.
    pub fn host(&self) -> Option<Rc<[i32]>> {
        let host = self.storage.host.borrow().clone()?;
        (self.offset == 0 && host.len() == self.size()).then_some(host)
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// Shape and dtype: the part of a value that operations check and plan with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub shape: Shape,
    pub dtype: DType,
}

impl Spec {
    pub fn f32(shape: impl Into<Shape>) -> Spec {
        Spec { shape: shape.into(), dtype: DType::F32 }
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}
