//! The argument of a native kernel: the launch.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::scalars::Field;
use super::{Access, Params};
use crate::dtype::DType;
use crate::kernel::{Launch, Range};

/// A launch on the CPU.
pub struct NativeLaunch<'a> {
    pub params: Params,
    words: &'a [u32],
    pub threads: usize,
    bindings: SmallVec<[(*mut u8, Range); 6]>,
    access: &'a [(&'static str, Access)],
    /// A bit for each binding that was handed out for writing.
    written: AtomicU32,
}

// SAFETY: ranges overlap only if they are not written: a written range is bound once.
unsafe impl Sync for NativeLaunch<'_> {}

impl NativeLaunch<'_> {
    /// `bindings` are the addresses of the launch's ranges.
    pub fn new(
        launch: &Launch,
        threads: usize,
        bindings: SmallVec<[(*mut u8, Range); 6]>,
    ) -> NativeLaunch<'_> {
        let Launch { params, scalars: ref words, kernel, .. } = *launch;
        let written = AtomicU32::new(0);
        NativeLaunch { params, words, threads, bindings, access: kernel.bindings, written }
    }

    /// The launch's scalars.
    pub fn scalars<S: Field>(&self) -> S {
        S::read(&mut self.words.iter())
    }

    pub fn dtype(&self, binding: usize) -> DType {
        self.bindings[binding].1.dtype
    }

    /// The elements of a binding.
    pub fn read<T: bytemuck::Pod>(&self, binding: usize) -> &[T] {
        let (pointer, range) = self.bindings[binding];
        debug_assert_eq!(range.bytes as usize % size_of::<T>(), 0);
        debug_assert_eq!(pointer as usize % align_of::<T>(), 0);
        // SAFETY: the range is in a buffer, aligned to its elements, and the launch writes it only through another
        // binding.
        unsafe { std::slice::from_raw_parts(pointer.cast(), range.bytes as usize / size_of::<T>()) }
    }

    /// The elements of a written binding; a launch hands it out once.
    ///
    /// # Panics
    /// If the binding is only read, or was handed out before.
    #[allow(clippy::mut_from_ref)]
    pub fn write<T: bytemuck::Pod>(&self, binding: usize) -> &mut [T] {
        let (pointer, range) = self.bindings[binding];
        assert_ne!(self.access[binding].1, Access::Read, "a kernel writes a read binding");
        let bit = 1 << binding;
        assert_eq!(self.written.fetch_or(bit, Relaxed) & bit, 0, "a kernel takes a written binding twice");
        debug_assert_eq!(pointer as usize % align_of::<T>(), 0);
        // SAFETY: as in `read`, and it is handed out once.
        unsafe { std::slice::from_raw_parts_mut(pointer.cast(), range.bytes as usize / size_of::<T>()) }
    }

    /// The elements of a float binding as f32, converted from half storage.
    pub fn read_f32(&self, binding: usize) -> std::borrow::Cow<'_, [f32]> {
        match self.dtype(binding) {
            DType::F32 => self.read::<f32>(binding).into(),
            DType::F16 => self.read::<half::f16>(binding).iter().map(|v| v.to_f32()).collect(),
            DType::BF16 => self.read::<half::bf16>(binding).iter().map(|v| v.to_f32()).collect(),
            DType::I32 | DType::Block(_) => unreachable!("validated by the operation"),
        }
    }
}
