//! What the processor's buffers lie in.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use memmap2::{MmapMut, MmapRaw};

use crate::kernel::Range;
use crate::mapped_file::Lease;

/// Bytes from which a buffer has pages of its own. The allocator's heap, where buffers of all sizes
/// come and go, grows by half over a hundred steps (52 MB for a pool of 31, against 36). Never under Miri, which takes
/// back whole pages alone.
const PAGES: usize = if cfg!(miri) { usize::MAX } else { 256 << 10 };
/// Bytes from which large pages are asked for. Of 2 MiB, and not 4: a product whose C has 3 takes 1 to 2% less.
#[cfg(target_os = "linux")]
const LARGE_PAGES: usize = 2 << 20;
/// Bytes of `Loose` that are kept past what is not the making of a buffer.
const LOOSE: usize = 16 << 20;

/// A buffer's bytes, on a cache line's start where they are the process's own.
pub enum Memory {
    Heap(Heap),
    Pages(MmapRaw),
    Mapped { file: Lease, offset: usize, bytes: usize },
}

impl Memory {
    /// A buffer, which holds anything. `None` where the system has no more.
    pub fn new(bytes: usize, loose: &mut Loose) -> Option<Memory> {
        if bytes < PAGES {
            return Heap::new(bytes).map(Memory::Heap);
        }
        let pages = loose.take(bytes).or_else(|| {
            // What lies there may be what the system lacks.
            loose.clear();
            MmapMut::map_anon(bytes).ok().map(MmapRaw::from)
        })?;
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
            Memory::Pages(pages) => (pages.as_mut_ptr(), pages.len()),
            Memory::Mapped { file, offset, bytes } => (file.at(*offset), *bytes),
        };
        assert!((range.offset + range.bytes) as usize <= bytes, "range past its buffer");
        // SAFETY: it lies within the buffer.
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
        // SAFETY: the layout has a size.
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

/// Pages of buffers that were given back, until the device waits: a buffer that is made meanwhile takes some over.
/// The system clears each page that it hands out, and a step whose tensors have other sizes than those before gives
/// buffers back while it makes its own. A model of 12 layers, steps of 32 to 512 tokens: 25,000 new pages a step
/// without, 16,000 where nothing is kept past a launch, 13,000 here, and without a bound; 264, 257, 250, 251 ms.
#[derive(Default)]
pub struct Loose(Vec<MmapRaw>);

impl Loose {
    /// Takes a buffer's pages.
    pub fn put(&mut self, memory: Memory) {
        if let Memory::Pages(pages) = memory {
            self.0.push(pages);
        }
    }

    /// Gives the system all but a little, those first that have been here longest.
    pub fn bound(&mut self) {
        let mut bytes = self.bytes();
        self.0.retain(|pages| {
            let goes = bytes > LOOSE;
            bytes -= if goes { pages.len() } else { 0 };
            !goes
        });
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|pages| pages.len()).sum()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// `bytes` of pages, of which some are another's: those of the smallest that has enough, or of the largest.
    #[cfg(target_os = "linux")]
    fn take(&mut self, bytes: usize) -> Option<MmapRaw> {
        let enough = |pages: &MmapRaw| match pages.len() {
            length if length >= bytes => (0, length),
            length => (1, usize::MAX - length),
        };
        let best = (0..self.0.len()).min_by_key(|i| enough(&self.0[*i]))?;
        let mut pages = self.0.swap_remove(best);
        // SAFETY: they are no file's, and nothing points into pages that were given back.
        unsafe { pages.remap(bytes, memmap2::RemapOptions::new().may_move(true)) }.ok()?;
        Some(pages)
    }

    /// Only there can pages move.
    #[cfg(not(target_os = "linux"))]
    fn take(&mut self, _bytes: usize) -> Option<MmapRaw> {
        None
    }
}
