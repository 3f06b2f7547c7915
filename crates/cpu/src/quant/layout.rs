//! Reads arbitrary ranges of a matrix in blocks.

use super::vectors::Part;
use super::{Block, PART};
use crate::simd::{Isa, Lanes, compiled};

/// Unpacks `count` elements of a matrix in blocks, from `element` on; arguments: blocks, element, count, destination.
pub type Unpack = unsafe fn(*const u8, usize, usize, *mut f32);

/// The layout of a matrix's blocks.
pub trait Layout: 'static {
    const ELEMENTS: usize;
    const BYTES: usize;

    /// The elements from `PART` · `part` on.
    ///
    /// # Safety
    /// The processor has S's instructions; `blocks` covers these elements.
    unsafe fn load_part<S: Isa>(blocks: *const u8, part: usize) -> Part<S::V>;

    /// Writes the part to `out`.
    ///
    /// # Safety
    /// As for `load_part`; `out` has room for `PART` elements.
    #[inline(always)]
    unsafe fn write<S: Isa>(blocks: *const u8, part: usize, out: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let vectors = Self::load_part::<S>(blocks, part);
            for (i, vector) in vectors.iter().enumerate().take(PART / S::WIDTH) {
                vector.store(out.add(i * S::WIDTH));
            }
        }
    }
}

impl<B: Block> Layout for B {
    const ELEMENTS: usize = B::ELEMENTS;
    const BYTES: usize = size_of::<B>();

    #[inline(always)]
    unsafe fn load_part<S: Isa>(blocks: *const u8, part: usize) -> Part<S::V> {
        let parts = B::ELEMENTS / PART;
        // SAFETY: guaranteed by the caller; a block consists of bytes, so any address is aligned.
        unsafe { (*blocks.cast::<B>().add(part / parts)).load_vectors::<S>(part % parts) }
    }
}

compiled! {
    exact pub(super) fn unpack[B: Layout](blocks: *const u8, element: usize, count: usize, out: *mut f32) {
        let (mut at, end, mut out) = (element, element + count, out);
        // SAFETY: guaranteed by the caller.
        unsafe {
            while at < end {
                let (part, skip) = (at / PART, at % PART);
                let taken = (PART - skip).min(end - at);
                if taken == PART {
                    B::write::<S>(blocks, part, out);
                } else {
                    let mut all = [0.0; PART];
                    B::write::<S>(blocks, part, all.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(all.as_ptr().add(skip), out, taken);
                }
                (at, out) = (at + taken, out.add(taken));
            }
        }
    }
}
