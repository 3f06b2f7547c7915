//! The devices of this machine.

use lowrank_engine::device::gpu::compiler;
use lowrank_engine::device::{cpu, gpu, registry};
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;

use crate::background;
use crate::error::Result;

/// One device. `memory` is in bytes, if known.
#[napi(object)]
pub struct DeviceReport {
    pub device: String,
    pub name: String,
    pub kind: String,
    pub backend: String,
    pub driver: Option<String>,
    pub memory: Option<f64>,
}

/// A GPU's properties, as its driver reports them.
#[napi(object)]
pub struct GpuDetails {
    /// The name of the device in options, such as `gpu:0`.
    pub device: String,
    /// PCI ids of the vendor and the model; 0 if the backend has none.
    pub vendor: u32,
    pub model: u32,
    pub driver: String,
    pub driver_info: String,
    /// Whether kernels may compute in f16.
    pub f16: bool,
    /// Whether kernels may read f16.
    pub f16_storage: bool,
    /// Lanes of the smallest and the largest subgroup; 0 if kernels cannot use subgroups.
    pub subgroup_min: u32,
    pub subgroup_max: u32,
    pub timestamps: bool,
    /// Shapes of cooperative matrices, such as `16x16x16 f16 -> f32`.
    pub cooperative_matrices: Vec<String>,
    pub binding_limit: f64,
    pub buffer_limit: f64,
    pub storage_buffers: u32,
    pub workgroup_bytes: u32,
    pub invocations: u32,
    /// Memory in bytes, if known.
    pub memory: Option<f64>,
    /// The reason why it cannot be used, if there is one.
    pub lacks: Option<String>,
    /// Milliseconds after which the system ends a submission, if known.
    pub watchdog_ms: Option<u32>,
}

/// Lists the GPUs with their drivers' properties, best first.
#[napi(catch_unwind)]
pub fn gpu_details() -> Vec<GpuDetails> {
    let described = gpu::list_details().into_iter().map(|(info, details)| GpuDetails {
        device: format!("gpu:{}", info.index),
        vendor: details.vendor,
        model: details.device,
        driver: details.driver,
        driver_info: details.driver_info,
        f16: details.f16,
        f16_storage: details.f16_storage,
        subgroup_min: details.subgroups[0],
        subgroup_max: details.subgroups[1],
        timestamps: details.timestamps,
        cooperative_matrices: details.cooperative_matrices,
        binding_limit: info.binding_limit as f64,
        buffer_limit: info.buffer_limit as f64,
        storage_buffers: details.storage_buffers,
        workgroup_bytes: details.workgroup_bytes,
        invocations: details.invocations,
        memory: (info.memory < u64::MAX / 2).then_some(info.memory as f64),
        lacks: info.lacks,
        watchdog_ms: details.watchdog_ms,
    });
    described.collect()
}

/// Lists the cpu, then the GPUs, best first.
#[napi(catch_unwind)]
pub fn devices() -> Vec<DeviceReport> {
    let cpu = cpu::make_profile(0);
    let processor = DeviceReport {
        device: "cpu".into(),
        name: cpu.name,
        kind: "cpu".into(),
        backend: cpu.backend,
        driver: None,
        memory: (cpu.memory < u64::MAX / 2).then_some(cpu.memory as f64),
    };
    let gpus = gpu::list_adapters().into_iter().map(|a| DeviceReport {
        device: format!("gpu:{}", a.index),
        name: a.name,
        kind: a.kind.as_str().into(),
        backend: a.backend,
        driver: Some(a.driver).filter(|d| !d.is_empty()),
        memory: (a.memory < u64::MAX / 2).then_some(a.memory as f64),
    });
    std::iter::once(processor).chain(gpus).collect()
}

/// Returns the number of threads of the cpu device.
#[napi(catch_unwind)]
pub fn cpu_threads() -> u32 {
    registry::count_threads() as u32
}

/// A candidate for DXC, the shader compiler of DX12, and the source of its path.
#[napi(object)]
pub struct CompilerFile {
    pub source: String,
    pub path: String,
}

/// Sets the files that are tried as DX12's shader compiler, in this order, after the file in `LOWRANK_DXC`. Call it
/// before GPUs are detected; files that do not exist are ignored.
#[napi(catch_unwind)]
pub fn look_for_compilers_in(files: Vec<CompilerFile>) {
    let candidates = files.into_iter().map(|f| compiler::Candidate { source: f.source, path: f.path.into() });
    compiler::set_candidates(candidates.collect());
}

/// Returns the warnings about DX12's shader compiler that have not been taken yet. There are none before GPUs are
/// detected, or if no GPU uses DX12.
#[napi(catch_unwind)]
pub fn take_compiler_warnings() -> Vec<String> {
    compiler::take_warnings()
}

/// Detects the GPUs on a background thread, since the first time is slow.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn find_devices(env: &Env) -> Result<Object<'_>> {
    background::run_for_null(env, "devices", || {
        gpu::list_adapters();
        Ok(())
    })
}
