//! The devices of this machine.

use lowrank_engine::device::gpu::compiler;
use lowrank_engine::device::{cpu, gpu, registry};
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;

use crate::background;
use crate::error::Result;

/// One device; `memory` is in bytes, where it is known.
#[napi(object)]
pub struct DeviceReport {
    pub device: String,
    pub name: String,
    pub kind: String,
    pub backend: String,
    pub driver: Option<String>,
    pub memory: Option<f64>,
}

/// What the driver of a GPU tells of it.
#[napi(object)]
pub struct GpuDetails {
    /// As options name it: `gpu:0`.
    pub device: String,
    /// PCI numbers of the vendor and the model; 0 where the backend has none.
    pub vendor: u32,
    pub model: u32,
    pub driver: String,
    pub driver_info: String,
    /// Whether kernels may compute in f16.
    pub f16: bool,
    /// Whether kernels may read f16.
    pub f16_storage: bool,
    /// Lanes of the smallest and of the largest subgroup; 0 where kernels may not use them.
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
    /// Bytes of its memory, where it is known.
    pub memory: Option<f64>,
    /// What it lacks, where it cannot be used.
    pub lacks: Option<String>,
    /// Milliseconds after which the system ends a submission, as far as is known.
    pub watchdog_ms: Option<u32>,
}

/// What drivers tell of the GPUs, best first.
#[napi(catch_unwind)]
pub fn gpu_details() -> Vec<GpuDetails> {
    let described = gpu::details().into_iter().map(|(info, details)| GpuDetails {
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

/// The cpu, then the GPUs, best first.
#[napi(catch_unwind)]
pub fn devices() -> Vec<DeviceReport> {
    let cpu = cpu::profile(0);
    let processor = DeviceReport {
        device: "cpu".into(),
        name: cpu.name,
        kind: "cpu".into(),
        backend: cpu.backend,
        driver: None,
        memory: (cpu.memory < u64::MAX / 2).then_some(cpu.memory as f64),
    };
    let gpus = gpu::adapters().into_iter().map(|a| DeviceReport {
        device: format!("gpu:{}", a.index),
        name: a.name,
        kind: a.kind.as_str().into(),
        backend: a.backend,
        driver: Some(a.driver).filter(|d| !d.is_empty()),
        memory: (a.memory < u64::MAX / 2).then_some(a.memory as f64),
    });
    std::iter::once(processor).chain(gpus).collect()
}

/// The threads that the cpu device has.
#[napi(catch_unwind)]
pub fn cpu_threads() -> u32 {
    registry::threads() as u32
}

/// A file that may be a DXC, the shader compiler of DX12, and where its path comes from.
#[napi(object)]
pub struct CompilerFile {
    pub source: String,
    pub path: String,
}

/// Sets the files that are tried as DX12's shader compiler after `LOWRANK_DXC`'s, in order. Call it before GPUs are
/// looked for; files that do not exist are left out.
#[napi(catch_unwind)]
pub fn look_for_compilers_in(files: Vec<CompilerFile>) {
    let candidates = files.into_iter().map(|f| compiler::Candidate { source: f.source, path: f.path.into() });
    compiler::look_in(candidates.collect());
}

/// Takes the warnings about DX12's shader compiler that nobody has taken yet. There are none before GPUs are looked
/// for, nor where DX12 drives none.
#[napi(catch_unwind)]
pub fn take_compiler_warnings() -> Vec<String> {
    compiler::take_warnings()
}

/// Has the drivers looked for away from JavaScript's thread: the first time takes a while.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn find_devices(env: &Env) -> Result<Object<'_>> {
    background::done(env, "devices", || {
        gpu::adapters();
        Ok(())
    })
}
