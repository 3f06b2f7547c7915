//! The GPUs of this machine, as reported by drivers, and the profile of a device on each.

mod memory;

use std::sync::OnceLock;

use super::compiler::{self, Compiler};
use super::details::Details;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::kernel::shader;
use crate::profile::{Kind, Profile};

/// Bytes of immediates that every kernel may use.
pub const IMMEDIATE_BYTES: u32 = 4 * shader::IMMEDIATE_WORDS as u32;

/// The kind of an adapter, in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdapterKind {
    Discrete,
    Integrated,
    /// Part of a GPU, provided by a hypervisor.
    Virtual,
    Other,
    /// An emulation on the processor: correct, but slow.
    Software,
}

impl AdapterKind {
    /// `discrete`, `integrated`, `virtual`, `other` or `software`.
    pub fn as_str(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Other => "other",
            AdapterKind::Software => "software",
        }
    }
}

/// One GPU with one graphics API.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// The number in `gpu:1`.
    pub index: usize,
    /// The vendor's name for it.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    pub kind: AdapterKind,
    /// The driver and its version, if the backend reports them.
    pub driver: String,
    /// Memory in bytes; `u64::MAX / 2` if unknown.
    pub memory: u64,
    /// The most bytes of one binding.
    pub binding_limit: u64,
    /// The most bytes of one buffer.
    pub buffer_limit: u64,
    /// Lanes of the smallest subgroup; 0 if kernels cannot use subgroups.
    pub subgroup: u32,
    /// Whether kernels may read f16.
    pub f16: bool,
    /// Whether kernels may compute in f16 (SHADER_F16).
    pub f16_arithmetic: bool,
    /// The reason why it cannot be used, if there is one.
    pub lacks: Option<String>,
}

/// Lists the GPUs of this machine: discrete ones first, then integrated, software last; within a kind by decreasing
/// memory.
pub fn list_adapters() -> Vec<AdapterInfo> {
    enumerate().into_iter().map(|(info, _)| info).collect()
}

/// The driver's description of each GPU, in the order of `list_adapters()`.
pub fn list_details() -> Vec<(AdapterInfo, Details)> {
    let describe = |(info, adapter): (AdapterInfo, wgpu::Adapter)| {
        let details = Details::of(&adapter);
        (info, details)
    };
    enumerate().into_iter().map(describe).collect()
}

/// Returns the profile that a device on adapter `index` (by default the first usable one) would have, for `meta:gpu`.
/// Creates no device. `binding_limit` (bytes) lowers the adapter's limit, as in `Gpu::open_with`.
///
/// # Errors
/// `ERR_NO_GPU` if there is no such adapter or it cannot be used.
pub fn read_profile(index: Option<usize>, binding_limit: Option<u64>) -> Result<Profile> {
    Ok(choose(index, binding_limit)?.0)
}

/// Chooses the adapter to open; returns its profile, too.
pub(super) fn choose(index: Option<usize>, limit: Option<u64>) -> Result<(Profile, wgpu::Adapter)> {
    let mut all = enumerate();
    let found = match index {
        Some(index) => (index < all.len()).then_some(index),
        None => all.iter().position(|(info, _)| info.lacks.is_none()),
    };
    let Some(found) = found else {
        let what = index.map_or("no usable GPU".to_string(), |i| format!("no GPU number {i}"));
        return Err(Error::new(Code::NoGpu, format!("{what}; {}", describe_adapters(&all))));
    };
    let (info, adapter) = all.swap_remove(found);
    if let Some(lacks) = &info.lacks {
        fail!(NoGpu, "{} ({}) cannot be used: {lacks}; use cpu", info.name, info.backend);
    }
    let from_environment = || std::env::var("LOWRANK_BINDING_LIMIT").ok()?.parse().ok();
    let limit = limit.or_else(from_environment).unwrap_or(u64::MAX).max(256);
    let profile = Profile {
        kind: Kind::Gpu,
        label: index.map_or("gpu".into(), |i| format!("gpu:{i}")),
        name: info.name,
        backend: info.backend,
        software: info.kind == AdapterKind::Software,
        subgroup: info.subgroup,
        f16: info.f16,
        f16_arithmetic: info.f16_arithmetic,
        binding_limit: limit.min(info.binding_limit),
        buffer_limit: info.buffer_limit,
        memory: info.memory,
        maps_files: false,
        threads: 1,
    };
    Ok((profile, adapter))
}

/// Lists the available adapters, with their names for `--device`.
fn describe_adapters(all: &[(AdapterInfo, wgpu::Adapter)]) -> String {
    if all.is_empty() {
        return "no driver for Vulkan, Metal or DX12 reports one (install the GPU's driver, or use cpu)"
            .into();
    }
    let each = all.iter().map(|(info, _)| {
        let lacks = info.lacks.as_ref().map_or(String::new(), |l| format!(", unusable: {l}"));
        format!("gpu:{} ({}, {}, {}{lacks})", info.index, info.name, info.backend, info.kind.as_str())
    });
    format!("there are cpu, {}", each.collect::<Vec<_>>().join(", "))
}

fn enumerate() -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let Some(instance) = get_instance() else { return Vec::new() };
    let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    if let Some(instance) = get_fxc_instance(&found) {
        found.extend(pollster::block_on(instance.enumerate_adapters(wgpu::Backends::DX12)));
    }
    let on_dx12 = found.iter().any(|adapter| adapter.get_info().backend == wgpu::Backend::Dx12);
    if on_dx12 || (cfg!(windows) && std::env::var_os(compiler::VARIABLE).is_some()) {
        compiler::publish_warnings();
    }
    let vulkan: Vec<_> = found
        .iter()
        .map(|a| a.get_info())
        .filter(|i| i.backend == wgpu::Backend::Vulkan)
        .map(|i| (i.vendor, i.device))
        .collect();
    let mut all: Vec<_> = found
        .into_iter()
        // List a GPU once, even if several APIs support it.
        .filter(|adapter| {
            let info = adapter.get_info();
            info.backend != wgpu::Backend::Dx12 || !vulkan.contains(&(info.vendor, info.device))
        })
        .map(|adapter| (describe_adapter(&adapter), adapter))
        .collect();
    all.sort_by_key(|(info, _)| (info.kind, std::cmp::Reverse(info.memory)));
    for (index, (info, _)) in all.iter_mut().enumerate() {
        info.index = index;
    }
    all
}

fn describe_adapter(adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let lacks = if !adapter.features().contains(wgpu::Features::IMMEDIATES)
        || limits.max_immediate_size < IMMEDIATE_BYTES
    {
        Some(format!("its driver has less than {IMMEDIATE_BYTES} bytes of immediates"))
    } else {
        None
    };
    let subgroups = adapter.features().contains(wgpu::Features::SUBGROUP);
    // These capabilities are not requested as features: a driver either has them or not.
    let downlevel = adapter.get_downlevel_capabilities().flags;
    let driver = format_driver(&info);
    let backend = match info.backend {
        wgpu::Backend::Vulkan => "Vulkan",
        wgpu::Backend::Metal => "Metal",
        wgpu::Backend::Dx12 if uses_fxc(adapter) => "DX12 (FXC)",
        wgpu::Backend::Dx12 => "DX12",
        other => other.to_str(),
    };
    AdapterInfo {
        index: 0,
        name: info.name,
        backend: backend.into(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Other,
        },
        driver,
        memory: memory::read(adapter).unwrap_or(u64::MAX / 2),
        // A range that starts at an unaligned offset is bound from the aligned offset before it. Kernels count elements
        // with u32; only Metal reports a larger limit.
        binding_limit: (limits.max_storage_buffer_binding_size.min(i32::MAX as u64) & !3)
            .saturating_sub(u64::from(limits.min_storage_buffer_offset_alignment)),
        buffer_limit: limits.max_buffer_size,
        subgroup: if subgroups { info.subgroup_min_size } else { 0 },
        f16: downlevel.contains(wgpu::DownlevelFlags::SHADER_F16_IN_F32),
        f16_arithmetic: adapter.features().contains(wgpu::Features::SHADER_F16),
        lacks,
    }
}

/// The driver and its version, if the backend reports them.
pub(super) fn format_driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().into()
}

/// The name of an adapter's shader compiler in errors.
pub(super) fn name_compiler(adapter: &wgpu::Adapter) -> String {
    match adapter.get_info().backend {
        wgpu::Backend::Dx12 if uses_fxc(adapter) => Compiler::Fxc.describe(),
        wgpu::Backend::Dx12 => compiler::get_choice().compiler.describe(),
        wgpu::Backend::Metal => "Metal".into(),
        _ => "the driver".into(),
    }
}

/// Whether a DX12 adapter uses FXC: the process chose it, or the adapter lacks shader model 6.
fn uses_fxc(adapter: &wgpu::Adapter) -> bool {
    // Subgroups exist only in shader model 6.
    compiler::get_choice().compiler == Compiler::Fxc || !adapter.features().contains(wgpu::Features::SUBGROUP)
}

/// The share of the driver's memory budget above which creating a buffer is an error, so that a shortage is reported
/// before the device is lost.
const BUDGET: wgpu::MemoryBudgetThresholds =
    wgpu::MemoryBudgetThresholds { for_resource_creation: Some(97), for_device_loss: None };

/// The process's wgpu instance; `None` if there are no drivers.
fn get_instance() -> Option<&'static wgpu::Instance> {
    static INSTANCE: OnceLock<Option<wgpu::Instance>> = OnceLock::new();
    INSTANCE.get_or_init(new_instance).as_ref()
}

/// Creates a Vulkan instance without the Wayland surface extension: with it, Mesa's device-selection layer prints to
/// stderr on a machine without a display.
#[cfg(target_os = "linux")]
fn new_instance() -> Option<wgpu::Instance> {
    use wgpu::hal::vulkan;
    let options = wgpu::hal::InstanceDescriptor {
        name: "lowrank",
        flags: wgpu::InstanceFlags::empty(),
        memory_budget_thresholds: BUDGET,
        backend_options: wgpu::BackendOptions::default(),
        telemetry: None,
        display: None,
    };
    let headless: Box<vulkan::CreateInstanceCallback> =
        Box::new(|with| with.extensions.retain(|name| *name != c"VK_KHR_wayland_surface"));
    // SAFETY: wgpu requires the extensions it chose for surfaces only; this program creates no surface.
    let raw = unsafe { vulkan::Instance::init_with_callback(&options, Some(headless)) }.ok()?;
    // SAFETY: `raw` was created just now and is not used elsewhere.
    Some(unsafe { wgpu::Instance::from_hal::<wgpu::hal::api::Vulkan>(raw) })
}

#[cfg(not(target_os = "linux"))]
fn new_instance() -> Option<wgpu::Instance> {
    use wgpu::Backends;
    // Lets the DX12 tests run on a GPU that Vulkan also supports.
    let only = std::env::var("LOWRANK_BACKEND").unwrap_or_default();
    let backends = match only.as_str() {
        "dx12" => Backends::DX12,
        "vulkan" => Backends::VULKAN,
        _ => Backends::VULKAN | Backends::METAL | Backends::DX12,
    };
    Some(create_instance(backends, compiler::get_choice().compiler.clone()))
}

#[cfg(not(target_os = "linux"))]
fn create_instance(backends: wgpu::Backends, compiler: Compiler) -> wgpu::Instance {
    let mut options = wgpu::InstanceDescriptor::new_without_display_handle();
    options.backends = backends;
    options.flags = wgpu::InstanceFlags::empty();
    options.memory_budget_thresholds = BUDGET;
    options.backend_options.dx12.shader_compiler = match compiler {
        Compiler::Dxc { path, .. } => {
            wgpu::Dx12Compiler::DynamicDxc { dxc_path: path.to_string_lossy().into_owned() }
        }
        Compiler::Fxc => wgpu::Dx12Compiler::Fxc,
    };
    wgpu::Instance::new(options)
}

/// A second instance with FXC, used if the first instance has DXC and lists no DX12 adapter: old drivers lack shader
/// model 6, and only FXC compiles for them.
#[cfg(windows)]
fn get_fxc_instance(found: &[wgpu::Adapter]) -> Option<&'static wgpu::Instance> {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    let listed = found.iter().any(|adapter| adapter.get_info().backend == wgpu::Backend::Dx12);
    if listed
        || compiler::get_choice().compiler == Compiler::Fxc
        || std::env::var("LOWRANK_BACKEND").is_ok_and(|b| b == "vulkan")
    {
        return None;
    }
    Some(INSTANCE.get_or_init(|| create_instance(wgpu::Backends::DX12, Compiler::Fxc)))
}

#[cfg(not(windows))]
fn get_fxc_instance(_: &[wgpu::Adapter]) -> Option<&'static wgpu::Instance> {
    None
}
