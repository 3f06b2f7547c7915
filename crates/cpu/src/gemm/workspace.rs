//! Per-thread buffers: one for a task's packed data, one for data that is packed for all tasks.

use std::cell::RefCell;

use super::blocking::blocking;
use super::cache_line::LINE;

thread_local! {
    static PANELS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static SHARED: RefCell<Pages> = const { RefCell::new(Pages::NONE) };
}

/// Calls `body` with the thread's workspace: at least `size` elements, aligned to a cache line, of unspecified content.
pub fn with_workspace(size: usize, body: impl FnOnce(&mut [f32])) {
    PANELS.with_borrow_mut(|panels| {
        let whole = size.max(blocking().workspace) + LINE;
        if panels.len() < whole {
            panels.resize(whole, 0.0);
        }
        let skip = panels.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        body(&mut panels[skip..]);
    });
}

/// As for `with_workspace`, for data that all tasks of a product read; it belongs to the thread that starts them.
pub fn with_shared(size: usize, body: impl FnOnce(&mut [f32])) {
    SHARED.with_borrow_mut(|space| {
        let bytes = size_of::<f32>() * size;
        if space.bytes().len() < bytes {
            *space = Pages::NONE;
            *space = Pages::new(bytes);
        }
        body(bytemuck::cast_slice_mut(space.bytes()));
    });
}

/// Memory on huge pages where available: packed rows are read only a few times, so TLB misses would dominate.
#[cfg(not(miri))]
struct Pages(Option<memmap2::MmapMut>);

#[cfg(not(miri))]
impl Pages {
    const NONE: Pages = Pages(None);
    const LARGE: usize = 2 << 20;

    fn new(bytes: usize) -> Pages {
        let pages = memmap2::MmapMut::map_anon(bytes.next_multiple_of(Pages::LARGE));
        let pages = pages.expect("the system has memory for a product's rows");
        #[cfg(target_os = "linux")]
        pages.advise(memmap2::Advice::HugePage).ok();
        Pages(Some(pages))
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or(&mut [])
    }
}

#[cfg(miri)]
struct Pages(Vec<f32>);

#[cfg(miri)]
impl Pages {
    const NONE: Pages = Pages(Vec::new());

    fn new(bytes: usize) -> Pages {
        Pages(vec![0.0; bytes.div_ceil(size_of::<f32>())])
    }

    fn bytes(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}
