//! A thread's memory for what its tasks pack, and for what it packs for the tasks of all.

use std::cell::RefCell;

use super::blocking::blocking;

/// Elements of a cache line.
pub const LINE: usize = 16;

thread_local! {
    static PANELS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static SHARED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with a thread's workspace, of `size` elements at least, on a cache line's start; they
/// hold anything.
pub fn workspace(size: usize, body: impl FnOnce(&mut [f32])) {
    PANELS.with_borrow_mut(|panels| {
        let whole = size.max(blocking().workspace) + LINE;
        if panels.len() < whole {
            panels.resize(whole, 0.0);
        }
        let skip = panels.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        body(&mut panels[skip..]);
    });
}

/// As `workspace`, for what all tasks of a product read; the thread that starts them has it.
pub fn shared(size: usize, body: impl FnOnce(&mut [f32])) {
    SHARED.with_borrow_mut(|space| {
        let whole = size + LINE;
        if space.len() < whole {
            space.resize(whole, 0.0);
        }
        let skip = space.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        body(&mut space[skip..]);
    });
}
