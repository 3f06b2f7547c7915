//! The devices of this machine.

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
        memory: None,
    });
    std::iter::once(processor).chain(gpus).collect()
}

/// The threads that the cpu device has.
#[napi(catch_unwind)]
pub fn cpu_threads() -> u32 {
    registry::threads() as u32
}

/// Has the drivers looked for away from JavaScript's thread: the first time takes a while.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn find_devices(env: &Env) -> Result<Object<'_>> {
    background::done(env, "devices", || {
        gpu::adapters();
        Ok(())
    })
}
