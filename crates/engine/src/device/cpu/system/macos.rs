//! macOS: `sysctl`, and the kernel's page counts.

use std::ffi::CStr;

/// The longest name, in bytes.
const MAX_LENGTH: usize = 256;

/// Reads the `sysctl` entry `name` into `value`, at most its size; returns the bytes written.
fn read_sysctl<T>(name: &CStr, value: &mut T) -> Option<usize> {
    let mut bytes = size_of::<T>();
    // SAFETY: it writes at most `bytes`, the size of the value, and any bytes are valid for the types T in use.
    let failed = unsafe {
        libc::sysctlbyname(name.as_ptr(), (&raw mut *value).cast(), &mut bytes, std::ptr::null_mut(), 0)
    };
    (failed == 0).then_some(bytes)
}

/// Total memory in bytes.
pub fn read_total_memory() -> Option<u64> {
    let mut bytes = 0u64;
    read_sysctl(c"hw.memsize", &mut bytes).map(|_| bytes)
}

/// Bytes that can be allocated now: free and inactive pages.
pub fn read_free_memory() -> Option<u64> {
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: all fields are numbers, for which zero is valid.
    let mut pages: libc::vm_statistics64 = unsafe { std::mem::zeroed() };
    // SAFETY: it writes at most `count` numbers, the size of the struct.
    #[allow(deprecated)]
    let failed = unsafe {
        let host = libc::mach_host_self();
        libc::host_statistics64(host, libc::HOST_VM_INFO64, (&raw mut pages).cast(), &mut count)
    };
    // SAFETY: it changes nothing.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let free = u64::from(pages.free_count) + u64::from(pages.inactive_count);
    (failed == 0 && size > 0).then(|| free * size as u64)
}

/// The processor's name.
pub fn read_processor_name() -> Option<String> {
    let mut name = [0u8; MAX_LENGTH];
    read_sysctl(c"machdep.cpu.brand_string", &mut name)?;
    let name = CStr::from_bytes_until_nul(&name).ok()?.to_string_lossy();
    (!name.trim().is_empty()).then(|| name.trim().to_string())
}

/// Gives the calling thread the quality of service for long tasks that the user follows (utility): it yields to
/// interactive work but is not limited to the efficiency cores.
pub fn lower_priority() {
    // SAFETY: its arguments are numbers.
    unsafe {
        libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_UTILITY, 0);
    }
}
