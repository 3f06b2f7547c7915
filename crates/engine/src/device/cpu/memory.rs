//! What the processor's buffers lie in.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

use memmap2::MmapMut;

use crate::recording::Range;

/// Bytes from which a buffer has pages of its own. The allocator's heap, where buffers of all sizes
/// come and go, grows by half over a hundred steps (52 MB for a pool of 31, against 36).
const PAGES: usize = 256 << 10;
/// Bytes from which large pages are asked for.
#[cfg(target_os = "linux")]
const LARGE_PAGES: usize = 4 << 20;

/// A buffer's bytes, on a cache line's start where they are the process's own.
pub enum Memory {
    Heap(Heap),
    Pages(MmapMut),
    Mapped { file: Arc<MmapMut>, offset: usize, bytes: usize },
}

impl Memory {
    /// `None` where the system has no more.
    pub fn new(bytes: usize) -> Option<Memory> {
        if bytes < PAGES {
            return Heap::new(bytes).map(Memory::Heap);
        }
        let pages = MmapMut::map_anon(bytes).ok()?;
        #[cfg(target_os = "linux")]
        if bytes >= LARGE_PAGES {
            // Where the system has none, ordinary ones do.
            pages.advise(memmap2::Advice::HugePage).ok();
        }
        Some(Memory::Pages(pages))
    }

    /// Where a range of it starts.
    ///
    /// # Panics
    /// Where it ends past the buffer.
    pub fn at(&self, range: &Range) -> *mut u8 {
        let (start, bytes) = match self {
            Memory::Heap(heap) => (heap.start, heap.bytes),
            Memory::Pages(pages) => (pages.as_ptr().cast_mut(), pages.len()),
            Memory::Mapped { file, offset, bytes } => (file[*offset..].as_ptr().cast_mut(), *bytes),
        };
        assert!((range.offset + range.bytes) as usize <= bytes, "range past its buffer");
        unsafe { start.add(range.offset as usize) }
    }
}

/// The allocator's.
pub struct Heap {
    start: *mut u8,
    bytes: usize,
}

impl Heap {
    fn new(bytes: usize) -> Option<Heap> {
        let start = unsafe { alloc_zeroed(Heap::layout(bytes)?) };
        (!start.is_null()).then_some(Heap { start, bytes })
    }

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes.max(1), 64).ok()
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let layout = Heap::layout(self.bytes).expect("it was made with it");
        unsafe { dealloc(self.start, layout) }
    }
}
