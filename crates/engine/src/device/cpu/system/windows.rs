//! Windows: `GlobalMemoryStatusEx`, and the registry.

use windows_sys::Win32::System::Registry::{HKEY_LOCAL_MACHINE, RRF_RT_REG_SZ, RegGetValueW};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{
    GetCurrentThread, SetThreadPriority, THREAD_PRIORITY_BELOW_NORMAL,
};
use windows_sys::w;

/// The longest name, in UTF-16 units.
const MAX_LENGTH: usize = 256;

fn read_status() -> Option<MEMORYSTATUSEX> {
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: it writes a struct of the length in `dwLength`.
    (unsafe { GlobalMemoryStatusEx(&mut status) } != 0).then_some(status)
}

/// Total memory in bytes.
pub fn read_total_memory() -> Option<u64> {
    read_status().map(|status| status.ullTotalPhys)
}

/// Bytes that can be allocated now: the smaller of free memory and the remaining commit limit.
pub fn read_free_memory() -> Option<u64> {
    read_status().map(|status| status.ullAvailPhys.min(status.ullAvailPageFile))
}

/// The processor's name.
pub fn read_processor_name() -> Option<String> {
    let mut name = [0u16; MAX_LENGTH];
    let mut bytes = size_of_val(&name) as u32;
    let (key, value) = (w!("HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0"), w!("ProcessorNameString"));
    // SAFETY: it writes at most `bytes`, the size of the buffer.
    let failed = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            key,
            value,
            RRF_RT_REG_SZ,
            std::ptr::null_mut(),
            name.as_mut_ptr().cast(),
            &mut bytes,
        )
    };
    if failed != 0 {
        return None;
    }
    let name = String::from_utf16_lossy(&name[..bytes as usize / 2]);
    let name = name.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!name.is_empty()).then(|| name.to_string())
}

/// Lowers the calling thread by one class. Background mode (`THREAD_MODE_BACKGROUND_BEGIN`) would also lower the
/// priority of its memory, so that the system would reclaim its pages first.
pub fn lower_priority() {
    // SAFETY: the handle stands for the calling thread and is not closed.
    unsafe {
        SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_BELOW_NORMAL);
    }
}
