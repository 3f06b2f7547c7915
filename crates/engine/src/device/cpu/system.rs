//! What the system says of the machine: its memory, or that of the control group that the process is in, and the
//! processor's name; and the priority of threads.

#[cfg_attr(target_os = "linux", path = "system/linux.rs")]
#[cfg_attr(target_os = "macos", path = "system/macos.rs")]
#[cfg_attr(windows, path = "system/windows.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos", windows)), path = "system/other.rs")]
mod told;

/// Bytes in all, where the system tells; no bound otherwise.
pub fn memory() -> u64 {
    told::memory().unwrap_or(u64::MAX / 2)
}

/// Bytes that can be taken now without anything being swapped out or killed, where the system tells.
pub fn free() -> Option<u64> {
    told::free()
}

/// The processor's name; a word for any where the system tells none.
pub fn processor() -> String {
    told::processor().unwrap_or_else(|| "processor".into())
}

/// Lowers the priority of the calling thread for good, below that of ordinary threads and above that of idle ones.
/// Where the system refuses, the thread runs on as it is.
pub fn lower_priority() {
    told::lower_priority();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_its_memory_and_of_its_processor() {
        if cfg!(not(any(target_os = "linux", target_os = "macos", windows))) {
            return;
        }
        let (memory, free) = (memory(), free().expect("it tells what is free"));
        assert!((64 << 20..1 << 50).contains(&memory), "{memory} bytes in all");
        assert!((1 << 20..=memory).contains(&free), "{free} bytes of {memory} are free");
        // Linux on other processors tells numbers of makers and parts.
        if cfg!(any(target_arch = "x86_64", not(target_os = "linux"))) {
            assert_ne!(processor(), "processor");
            assert_eq!(processor(), processor().trim());
        }
    }
}
