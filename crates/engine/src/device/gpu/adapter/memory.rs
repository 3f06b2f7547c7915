//! The memory of an adapter, as its driver reports it.

/// Bytes of memory on the GPU itself, or that it may use of the system's; `None` where the driver reports none.
pub fn of(adapter: &wgpu::Adapter) -> Option<u64> {
    of_vulkan(adapter).or_else(|| of_dx12(adapter)).filter(|bytes| *bytes > 0)
}

/// The largest heap on the GPU itself.
#[cfg(any(target_os = "linux", target_os = "windows"))]
fn of_vulkan(adapter: &wgpu::Adapter) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: only asked what it is: nothing of the driver's is changed or kept.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = raw.shared_instance().raw_instance();
    // SAFETY: the physical device is this instance's.
    let heaps = unsafe { instance.get_physical_device_memory_properties(raw.raw_physical_device()) };
    let heaps = heaps.memory_heaps.iter().take(heaps.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn of_vulkan(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// The budget that Windows gives this process on the GPU. A GPU without memory of its own has its budget in the
/// system's.
#[cfg(windows)]
fn of_dx12(adapter: &wgpu::Adapter) -> Option<u64> {
    use windows::Win32::Graphics::Dxgi::{DXGI_MEMORY_SEGMENT_GROUP_LOCAL, DXGI_QUERY_VIDEO_MEMORY_INFO};
    // SAFETY: only asked what it is: nothing of the driver's is changed or kept.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    let adapter = raw.raw_adapter();
    let mut info = DXGI_QUERY_VIDEO_MEMORY_INFO::default();
    // SAFETY: node 0 is the only one of an adapter that is not linked, and the first of one that is.
    let told = unsafe { adapter.QueryVideoMemoryInfo(0, DXGI_MEMORY_SEGMENT_GROUP_LOCAL, &raw mut info) };
    if told.is_ok() && info.Budget > 0 {
        return Some(info.Budget);
    }
    // SAFETY: as above.
    let description = unsafe { adapter.GetDesc1() }.ok()?;
    Some(description.DedicatedVideoMemory.max(description.SharedSystemMemory) as u64)
}

#[cfg(not(windows))]
fn of_dx12(_: &wgpu::Adapter) -> Option<u64> {
    None
}
