//! Linux: `/proc`, and the control group of the process.

use std::fs::read_to_string;

/// Total memory in bytes.
pub fn read_total_memory() -> Option<u64> {
    read_meminfo("MemTotal:").into_iter().chain(read_cgroup().map(|(limit, _)| limit)).min()
}

/// Bytes that can be allocated now.
pub fn read_free_memory() -> Option<u64> {
    let machine = read_meminfo("MemAvailable:");
    machine.into_iter().chain(read_cgroup().map(|(limit, used)| limit.saturating_sub(used))).min()
}

/// The processor's name; x86 only.
pub fn read_processor_name() -> Option<String> {
    let info = read_to_string("/proc/cpuinfo").ok()?;
    let named = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    named.map(|(_, name)| name.trim().to_string())
}

fn read_meminfo(key: &str) -> Option<u64> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let value = info.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A container's limit and its use without file pages that can be dropped: cgroup v2, or v1.
fn read_cgroup() -> Option<(u64, u64)> {
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let read = |folder: &str, limit: &str, used: &str, cached: &str| {
        let limit = number(&format!("{folder}/{limit}"))?;
        let stat = read_to_string(format!("{folder}/memory.stat")).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse::<u64>().ok());
        Some((limit, number(&format!("{folder}/{used}"))?.saturating_sub(cached.unwrap_or(0))))
    };
    read("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ").or_else(|| {
        let folder = "/sys/fs/cgroup/memory";
        read(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
    })
}

/// The nice value of low-priority threads: Node's `os.constants.priority.PRIORITY_BELOW_NORMAL`.
const NICE: i32 = 10;

/// Raises the nice value of the calling thread: on Linux `PRIO_PROCESS` with 0 is one thread.
pub fn lower_priority() {
    // SAFETY: their arguments are numbers. If the first fails it returns -1, which is below the other value.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, 0).max(NICE);
        libc::setpriority(libc::PRIO_PROCESS, 0, nice);
    }
}
