//! The memory of an adapter, as its driver reports it.

/// The GPU's memory in bytes, or the system memory that it may use; `None` if the driver does not report it.
pub fn read(adapter: &wgpu::Adapter) -> Option<u64> {
    read_vulkan(adapter).or_else(|| read_dx12(adapter)).filter(|bytes| *bytes > 0)
}

/// Returns the largest device-local heap.
#[cfg(any(target_os = "linux", target_os = "windows"))]
fn read_vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: used for queries only; the driver's objects are neither changed nor kept.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = raw.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance.
    let heaps = unsafe { instance.get_physical_device_memory_properties(raw.raw_physical_device()) };
    let heaps = heaps.memory_heaps.iter().take(heaps.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn read_vulkan(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Returns this process's budget on the GPU under Windows. The budget of a GPU without dedicated memory is in system
/// memory.
#[cfg(windows)]
fn read_dx12(adapter: &wgpu::Adapter) -> Option<u64> {
    use windows::Win32::Graphics::Dxgi::{DXGI_MEMORY_SEGMENT_GROUP_LOCAL, DXGI_QUERY_VIDEO_MEMORY_INFO};
    // SAFETY: used for queries only; the driver's objects are neither changed nor kept.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    let adapter = raw.raw_adapter();
    let mut info = DXGI_QUERY_VIDEO_MEMORY_INFO::default();
    // SAFETY: node 0 is the only node of an unlinked adapter, and the first of a linked one.
    let result = unsafe { adapter.QueryVideoMemoryInfo(0, DXGI_MEMORY_SEGMENT_GROUP_LOCAL, &raw mut info) };
    if result.is_ok() && info.Budget > 0 {
        return Some(info.Budget);
    }
    // SAFETY: as above.
    let description = unsafe { adapter.GetDesc1() }.ok()?;
    Some(description.DedicatedVideoMemory.max(description.SharedSystemMemory) as u64)
}

#[cfg(not(windows))]
fn read_dx12(_: &wgpu::Adapter) -> Option<u64> {
    None
}
