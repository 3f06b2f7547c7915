//! The driver's description of a GPU, for reports.

/// A GPU as its driver describes it.
#[derive(Clone, Debug)]
pub struct Details {
    /// PCI ids of the vendor and the model; 0 if the backend has none.
    pub vendor: u32,
    pub device: u32,
    /// The driver's name, and its version as the driver formats it.
    pub driver: String,
    pub driver_info: String,
    /// Lanes of the smallest and the largest subgroup; 0 if kernels cannot use subgroups.
    pub subgroups: [u32; 2],
    /// Whether kernels may compute in f16, and whether they may read it.
    pub f16: bool,
    pub f16_storage: bool,
    pub timestamps: bool,
    /// Shapes of cooperative matrices, such as `16x16x16 f16 -> f32`.
    pub cooperative_matrices: Vec<String>,
    pub storage_buffers: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// The most invocations of a workgroup.
    pub invocations: u32,
    /// Milliseconds after which the system ends a submission and resets the GPU, if known.
    pub watchdog_ms: Option<u32>,
}

impl Details {
    /// Queries the driver; creates no device.
    pub fn of(adapter: &wgpu::Adapter) -> Details {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let subgroups = features.contains(wgpu::Features::SUBGROUP);
        let downlevel = adapter.get_downlevel_capabilities().flags;
        let matrices = adapter.cooperative_matrix_properties();
        Details {
            vendor: info.vendor,
            device: info.device,
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            subgroups: if subgroups { [info.subgroup_min_size, info.subgroup_max_size] } else { [0; 2] },
            f16: features.contains(wgpu::Features::SHADER_F16),
            f16_storage: downlevel.contains(wgpu::DownlevelFlags::SHADER_F16_IN_F32),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            cooperative_matrices: matrices.iter().map(format_matrix).collect(),
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            watchdog_ms: find_watchdog(&info),
        }
    }
}

fn format_matrix(shape: &wgpu::CooperativeMatrixProperties) -> String {
    let name = |kind: wgpu::CooperativeScalarType| format!("{kind:?}").to_lowercase();
    let (m, n, k) = (shape.m_size, shape.n_size, shape.k_size);
    format!("{m}x{n}x{k} {} -> {}", name(shape.ab_type), name(shape.cr_type))
}

/// The limit on a submission's duration before the system resets the GPU, in milliseconds; `None` without a watchdog.
///
/// Windows: `TdrDelay`, 2 s by default (Microsoft, "TDR registry keys"). Metal: not documented; it was seen to end
/// command buffers after 5 to 10 s, so 5 s. Linux: drivers differ (amdgpu's `lockup_timeout` is 10 s by default, i915's
/// `PREEMPT_TIMEOUT_COMPUTE` 7.5 s), and administrators lower them, so 2 s.
pub fn find_watchdog(info: &wgpu::AdapterInfo) -> Option<u32> {
    match info.backend {
        _ if info.device_type == wgpu::DeviceType::Cpu => None,
        wgpu::Backend::Metal => Some(5000),
        _ => Some(2000),
    }
}
