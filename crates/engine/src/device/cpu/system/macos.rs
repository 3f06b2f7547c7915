//! macOS's: `sysctl`, and the kernel's counts of pages.

use std::ffi::CStr;

/// Bytes of the longest name.
const LONGEST: usize = 256;

/// Writes what the kernel calls `name` into `value`, of which it takes no more than there is; the bytes written.
fn told<T>(name: &CStr, value: &mut T) -> Option<usize> {
    let mut bytes = size_of::<T>();
    // SAFETY: it writes no more than `bytes`, which are the value's, and every T that is asked for holds any bytes.
    let failed = unsafe {
        libc::sysctlbyname(name.as_ptr(), (&raw mut *value).cast(), &mut bytes, std::ptr::null_mut(), 0)
    };
    (failed == 0).then_some(bytes)
}

/// Bytes in all.
pub fn memory() -> Option<u64> {
    let mut bytes = 0u64;
    told(c"hw.memsize", &mut bytes).map(|_| bytes)
}

/// Bytes that can be taken now: pages that are free, or were not used lately.
pub fn free() -> Option<u64> {
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: it is made of numbers, for which zeros are values.
    let mut pages: libc::vm_statistics64 = unsafe { std::mem::zeroed() };
    // SAFETY: it writes no more numbers than `count`, which are the struct's.
    #[allow(deprecated)]
    let failed = unsafe {
        let host = libc::mach_host_self();
        libc::host_statistics64(host, libc::HOST_VM_INFO64, (&raw mut pages).cast(), &mut count)
    };
    // SAFETY: it only asks.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let free = u64::from(pages.free_count) + u64::from(pages.inactive_count);
    (failed == 0 && size > 0).then(|| free * size as u64)
}

/// The processor's name.
pub fn processor() -> Option<String> {
    let mut name = [0u8; LONGEST];
    told(c"machdep.cpu.brand_string", &mut name)?;
    let name = CStr::from_bytes_until_nul(&name).ok()?.to_string_lossy();
    (!name.trim().is_empty()).then(|| name.trim().to_string())
}

/// Gives the calling thread the class of work that takes long and that the user follows: it yields to what the user
/// does, and is not confined to the efficiency cores.
pub fn lower_priority() {
    // SAFETY: it takes numbers alone.
    unsafe {
        libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_UTILITY, 0);
    }
}
