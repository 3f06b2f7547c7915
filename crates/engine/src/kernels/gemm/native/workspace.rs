//! A thread's memory for what its tasks pack.

use std::cell::RefCell;

/// Elements of a thread's workspace for B: half of a usual second cache of a mebibyte. Half of that
/// takes A past half as many panels at a time where K is long: 190 instead of 200 GFLOP/s at
/// 512 × 4096 × 4096.
pub const WORKSPACE: usize = 128 * 1024;
/// Elements of a cache line.
pub const LINE: usize = 16;

thread_local! {
    static PANELS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with a thread's workspace, of `size` elements at least, on a cache line's start; they
/// hold anything.
pub fn workspace(size: usize, body: impl FnOnce(&mut [f32])) {
    PANELS.with_borrow_mut(|panels| {
        let whole = size.max(WORKSPACE) + LINE;
        if panels.len() < whole {
            panels.resize(whole, 0.0);
        }
        let skip = panels.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        body(&mut panels[skip..]);
    });
}
