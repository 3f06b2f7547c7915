//! The memory of the processor's buffers.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use memmap2::{MmapMut, MmapRaw};

use crate::kernel::Range;
use crate::mapped_file::Lease;

/// The minimum size, in bytes, of a buffer with separate pages. With all sizes in it, the allocator's heap grows by
/// half over a hundred steps (52 MB for a pool of 31, instead of 36). Never under Miri, which can only unmap whole
/// mappings.
const MIN_PAGES_BYTES: usize = if cfg!(miri) { usize::MAX } else { 256 << 10 };
/// The minimum size, in bytes, for huge pages: 2 MiB, not 4, since a product with a C of 3 MiB takes 1 to 2% less time.
#[cfg(target_os = "linux")]
const MIN_HUGE_PAGES_BYTES: usize = 2 << 20;
/// Bytes of `FreedPages` that `trim` keeps.
const MAX_IDLE_BYTES: usize = 16 << 20;

/// A buffer's bytes, aligned to a cache line unless they are mapped from a file.
pub enum Memory {
    Heap(Heap),
    Pages(MmapRaw),
    Mapped { file: Lease, offset: usize, bytes: usize },
}

impl Memory {
    /// Allocates a buffer with unspecified content. Returns `None` if the system has no memory left.
    pub fn new(bytes: usize, freed_pages: &mut FreedPages) -> Option<Memory> {
        if bytes < MIN_PAGES_BYTES {
            return Heap::new(bytes).map(Memory::Heap);
        }
        let pages = freed_pages.take(bytes).or_else(|| {
            // The idle pages may be the memory that is missing.
            freed_pages.clear();
            MmapMut::map_anon(bytes).ok().map(MmapRaw::from)
        })?;
        #[cfg(target_os = "linux")]
        if bytes >= MIN_HUGE_PAGES_BYTES {
            // Without huge pages, ordinary ones serve.
            pages.advise(memmap2::Advice::HugePage).ok();
        }
        Some(Memory::Pages(pages))
    }

    /// Returns a pointer to the start of a range.
    ///
    /// # Panics
    /// If the range ends past the buffer.
    pub fn pointer_at(&self, range: &Range) -> *mut u8 {
        let (start, bytes) = match self {
            Memory::Heap(heap) => (heap.start, heap.bytes),
            Memory::Pages(pages) => (pages.as_mut_ptr(), pages.len()),
            Memory::Mapped { file, offset, bytes } => (file.pointer_at(*offset), *bytes),
        };
        assert!((range.offset + range.bytes) as usize <= bytes, "range past its buffer");
        // SAFETY: it is inside the buffer.
        unsafe { start.add(range.offset as usize) }
    }
}

/// Memory of the allocator.
pub struct Heap {
    start: *mut u8,
    bytes: usize,
}

impl Heap {
    fn new(bytes: usize) -> Option<Heap> {
        // SAFETY: the size is not zero.
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
        // SAFETY: it was allocated with this layout, and nothing else frees it.
        unsafe { dealloc(self.start, layout) }
    }
}

/// Pages of freed buffers, kept for new buffers until the device waits. The system zeroes each new page, and a step
/// with tensors of other sizes than the previous one frees buffers while it creates its own. For a model of 12 layers
/// and steps of 32 to 512 tokens, new pages and time per step: 25,000 and 264 ms without this; 16,000 and 257 ms if
/// nothing is kept past a launch; 13,000 and 250 ms here; 13,000 and 251 ms without a bound.
#[derive(Default)]
pub struct FreedPages(Vec<MmapRaw>);

impl FreedPages {
    /// Adds a buffer's pages.
    pub fn put(&mut self, memory: Memory) {
        if let Memory::Pages(pages) = memory {
            self.0.push(pages);
        }
    }

    /// Returns all but `MAX_IDLE_BYTES` bytes to the system, the oldest first.
    pub fn trim(&mut self) {
        let mut bytes = self.bytes();
        self.0.retain(|pages| {
            let is_freed = bytes > MAX_IDLE_BYTES;
            bytes -= if is_freed { pages.len() } else { 0 };
            !is_freed
        });
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|pages| pages.len()).sum()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns `bytes` of pages by resizing the smallest mapping that is large enough, or else the largest.
    #[cfg(target_os = "linux")]
    fn take(&mut self, bytes: usize) -> Option<MmapRaw> {
        let enough = |pages: &MmapRaw| match pages.len() {
            length if length >= bytes => (0, length),
            length => (1, usize::MAX - length),
        };
        let best = (0..self.0.len()).min_by_key(|i| enough(&self.0[*i]))?;
        let mut pages = self.0.swap_remove(best);
        // SAFETY: they map no file, and nothing points into freed pages.
        unsafe { pages.remap(bytes, memmap2::RemapOptions::new().may_move(true)) }.ok()?;
        Some(pages)
    }

    /// Other systems cannot resize a mapping.
    #[cfg(not(target_os = "linux"))]
    fn take(&mut self, _bytes: usize) -> Option<MmapRaw> {
        None
    }
}
