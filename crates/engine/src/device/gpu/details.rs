//! What a driver tells of a GPU, for reports about it.

/// A GPU as its driver describes it.
#[derive(Clone, Debug)]
pub struct Details {
    /// PCI numbers of the vendor and the model; 0 where the backend has none.
    pub vendor: u32,
    pub device: u32,
    /// The driver's name, and its version in the driver's own words.
    pub driver: String,
    pub driver_info: String,
    /// Lanes of the smallest and the largest subgroup; 0 where kernels may not use them.
    pub subgroups: [u32; 2],
    /// Whether kernels may hold f16, and whether they may read it.
    pub f16: bool,
    pub f16_storage: bool,
    pub timestamps: bool,
    /// Shapes of cooperative matrices, such as `16x16x16 f16 -> f32`.
    pub cooperative_matrices: Vec<String>,
    pub storage_buffers: u32,
    /// Bytes of memory that a workgroup shares.
    pub workgroup_bytes: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Milliseconds after which the system ends a submission and resets the GPU, as far as is known.
    pub watchdog_ms: Option<u32>,
}

impl Details {
    /// Asks the driver; no device is made.
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
            cooperative_matrices: matrices.iter().map(matrix).collect(),
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            invocations: limits.max_compute_invocations_per_workgroup,
            watchdog_ms: watchdog(&info),
        }
    }
}

fn matrix(shape: &wgpu::CooperativeMatrixProperties) -> String {
    let name = |kind: wgpu::CooperativeScalarType| format!("{kind:?}").to_lowercase();
    let (m, n, k) = (shape.m_size, shape.n_size, shape.k_size);
    format!("{m}x{n}x{k} {} -> {}", name(shape.ab_type), name(shape.cr_type))
}

/// How long a submission may take before the system resets the GPU, in milliseconds; none where nothing watches.
///
/// Windows: `TdrDelay`, 2 s by default (Microsoft, "TDR registry keys"). Metal: not documented; command buffers were seen
/// to be ended after 5 to 10 s, so 5 s. Linux: drivers differ (amdgpu's `lockup_timeout` is 10 s by default, i915's
/// `PREEMPT_TIMEOUT_COMPUTE` 7.5 s), and administrators lower them, so 2 s.
pub fn watchdog(info: &wgpu::AdapterInfo) -> Option<u32> {
    match info.backend {
        _ if info.device_type == wgpu::DeviceType::Cpu => None,
        wgpu::Backend::Metal => Some(5000),
        _ => Some(2000),
    }
}
