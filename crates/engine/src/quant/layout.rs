//! Reading any elements of a matrix in blocks.

use super::{Block, PART};
use crate::simd::compiled;

/// Writes `count` elements of a matrix in blocks, from the `element`-th on: blocks, element, count, to.
pub type Unpack = unsafe fn(*const u8, usize, usize, *mut f32);

/// How the blocks of a matrix lie.
pub(super) trait Layout {
    const ELEMENTS: usize;
    const BYTES: usize;

    /// Writes elements `PART` · `part` of the matrix on.
    ///
    /// # Safety
    /// `blocks` reaches over these.
    unsafe fn part(blocks: *const u8, part: usize, out: &mut [f32; PART]);
}

impl<B: Block> Layout for B {
    const ELEMENTS: usize = B::ELEMENTS;
    const BYTES: usize = size_of::<B>();

    #[inline(always)]
    unsafe fn part(blocks: *const u8, part: usize, out: &mut [f32; PART]) {
        let parts = B::ELEMENTS / PART;
        // SAFETY: the caller's; a block is of bytes, on any address.
        let block = unsafe { &*blocks.cast::<B>().add(part / parts) };
        block.part(part % parts, out);
    }
}

compiled! {
    exact pub(super) fn unpack[B: Layout](blocks: *const u8, element: usize, count: usize, out: *mut f32) {
        let (mut at, end, mut out) = (element, element + count, out);
        // SAFETY: the caller's.
        unsafe {
            while at < end {
                let (part, skip) = (at / PART, at % PART);
                let some = (PART - skip).min(end - at);
                if some == PART {
                    B::part(blocks, part, &mut *out.cast::<[f32; PART]>());
                } else {
                    let mut all = [0.0; PART];
                    B::part(blocks, part, &mut all);
                    std::ptr::copy_nonoverlapping(all.as_ptr().add(skip), out, some);
                }
                (at, out) = (at + some, out.add(some));
            }
        }
    }
}
