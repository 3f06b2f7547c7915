//! System information: the memory of the machine or of the process's control group, and the processor's name. Also
//! the priority of threads.

#[cfg_attr(target_os = "linux", path = "system/linux.rs")]
#[cfg_attr(target_os = "macos", path = "system/macos.rs")]
#[cfg_attr(windows, path = "system/windows.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos", windows)), path = "system/other.rs")]
mod platform;

/// Total memory in bytes; unlimited if unknown.
pub fn read_total_memory() -> u64 {
    platform::read_total_memory().unwrap_or(u64::MAX / 2)
}

/// Bytes that can be allocated now without swapping or killing processes, if known.
pub fn read_free_memory() -> Option<u64> {
    platform::read_free_memory()
}

/// The processor's name; a generic word if unknown.
pub fn read_processor_name() -> String {
    platform::read_processor_name().unwrap_or_else(|| "processor".into())
}

/// Lowers the calling thread's priority permanently, below ordinary threads and above idle ones. If the system refuses,
/// the priority does not change.
pub fn lower_priority() {
    platform::lower_priority();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_reports_its_memory_and_its_processor() {
        if cfg!(not(any(target_os = "linux", target_os = "macos", windows))) {
            return;
        }
        let (memory, free) =
            (read_total_memory(), read_free_memory().expect("the system reports its free memory"));
        assert!((64 << 20..1 << 50).contains(&memory), "{memory} bytes in total");
        assert!((1 << 20..=memory).contains(&free), "{free} bytes of {memory} are free");
        // Linux reports only vendor and part numbers for other processors.
        if cfg!(any(target_arch = "x86_64", not(target_os = "linux"))) {
            assert_ne!(read_processor_name(), "processor");
            assert_eq!(read_processor_name(), read_processor_name().trim());
        }
    }
}
