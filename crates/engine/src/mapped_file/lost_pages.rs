//! Survives reads of mapped pages that the file no longer has.
//!
//! Where a file is truncated, the system answers a read of a lost page with a signal (SIGBUS), which ends the process.
//! A handler puts zeros in place of the lost pages of this module's maps and marks the map, and the reader of the bytes
//! checks the mark. Faults at any other address go to the handler that was installed before. Windows does not truncate a
//! mapped file.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The number of maps that are watched at a time. Further ones are not watched.
const SLOTS: usize = 1024;

/// A watched map. A signal handler may not lock, so the table is fixed and atomic.
struct Slot {
    /// The address of the first byte; 0 for a free slot.
    start: AtomicUsize,
    /// 0 until the slot is complete.
    bytes: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Slot; SLOTS] =
    [const { Slot { start: AtomicUsize::new(0), bytes: AtomicUsize::new(0), lost: AtomicBool::new(false) } };
        SLOTS];

/// Watches a map while it exists; it must be dropped before the map.
#[derive(Debug)]
pub struct Watch(Option<usize>);

impl Watch {
    pub fn new(start: *const u8, bytes: usize) -> Watch {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        handler::install();
        let free = |slot: &&'static Slot| {
            slot.start.compare_exchange(0, start as usize, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let found = (bytes > 0).then(|| TABLE.iter().position(|slot| free(&slot))).flatten();
        if let Some(i) = found {
            TABLE[i].lost.store(false, Ordering::Relaxed);
            TABLE[i].bytes.store(bytes, Ordering::Release);
        }
        Watch(found)
    }

    /// Whether a page was lost, so that bytes that were read may be zeros instead of the file's.
    pub fn has_lost_pages(&self) -> bool {
        self.0.is_some_and(|i| TABLE[i].lost.load(Ordering::Acquire))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(i) = self.0 {
            TABLE[i].bytes.store(0, Ordering::Release);
            TABLE[i].start.store(0, Ordering::Release);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod handler {
    use std::cell::UnsafeCell;
    use std::mem::MaybeUninit;
    use std::sync::Once;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::TABLE;

    struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);

    // SAFETY: written once, before the handler can run, and only read afterwards.
    unsafe impl Sync for Previous {}

    static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::zeroed()));
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

    pub fn install() {
        static ONCE: Once = Once::new();
        // SAFETY: the structure is initialised, and the handler calls only functions that are safe in a handler.
        ONCE.call_once(|| unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE);
            if page > 0 {
                PAGE_BYTES.store(page as usize, Ordering::Relaxed);
            }
            libc::sigaction(libc::SIGBUS, std::ptr::null(), PREVIOUS.0.get().cast());
            let mut action: libc::sigaction = std::mem::zeroed();
            let handle: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
            action.sa_sigaction = handle as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        });
    }

    extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the system passes valid structures.
        let address = unsafe { (*info).si_addr() } as usize;
        if !replace_pages(address) {
            pass_on(signal, info, context);
        }
    }

    /// Maps zeros from the page of `address` to the end of its map. Returns whether the address is in a watched map.
    fn replace_pages(address: usize) -> bool {
        for slot in &TABLE {
            let start = slot.start.load(Ordering::Acquire);
            let bytes = slot.bytes.load(Ordering::Acquire);
            // Another thread may have given the slot to another map between the two loads.
            let is_same_map = slot.start.load(Ordering::Acquire) == start;
            if !is_same_map || address < start || address - start >= bytes {
                continue;
            }
            slot.lost.store(true, Ordering::Release);
            let page = address & !(PAGE_BYTES.load(Ordering::Relaxed) - 1);
            let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
            // SAFETY: the pages belong to the map, which exists while its slot is watched.
            let mapped = unsafe {
                libc::mmap(
                    page as *mut _,
                    start + bytes - page,
                    libc::PROT_READ | libc::PROT_WRITE,
                    flags,
                    -1,
                    0,
                )
            };
            return mapped != libc::MAP_FAILED;
        }
        false
    }

    fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: `install` has written it, and the functions in it are the earlier handler's.
        unsafe {
            let previous = (*PREVIOUS.0.get()).assume_init_ref();
            match previous.sa_sigaction {
                // The fault happens again on return, and has its default effect then.
                libc::SIG_DFL | libc::SIG_IGN => {
                    libc::sigaction(signal, previous, std::ptr::null_mut());
                }
                function if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                    let function: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(function);
                    function(signal, info, context);
                }
                function => {
                    let function: extern "C" fn(libc::c_int) = std::mem::transmute(function);
                    function(signal);
                }
            }
        }
    }
}
