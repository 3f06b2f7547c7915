//! The devices of the process: opened once, shared by every environment, dropped by the last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::Device;
use super::cpu::{self, Cpu};
use super::gpu::{self, Gpu};
use crate::error::{Code, Error, Result};
use crate::profile::Profile;

static OPEN: Mutex<Option<HashMap<String, Weak<Device>>>> = Mutex::new(None);

/// The device that a label refers to.
pub enum Opened {
    Device(Arc<Device>),
    /// A meta device, which runs nothing, with the profile of the device that it imitates.
    Meta(Profile),
}

/// Opens the device called `label`: `cpu`, `gpu`, `gpu:N`, `meta:cpu` or `meta:gpu`.
///
/// # Errors
/// `ERR_NO_GPU` if there is none (it lists the GPUs that exist); `ERR_OPTION` for another label.
pub fn open(label: &str) -> Result<Opened> {
    if let Some(of) = label.strip_prefix("meta:") {
        // Only the profile is needed; no device is opened.
        let profile = match parse_gpu_index(of) {
            _ if of == "cpu" => cpu::make_profile(count_threads()),
            Some(index) => gpu::read_profile(index, None)?,
            None => return Err(unknown_label_error(label)),
        };
        return Ok(Opened::Meta(profile.to_meta()));
    }
    Ok(Opened::Device(start_device(label)?))
}

fn start_device(label: &str) -> Result<Arc<Device>> {
    let mut open = OPEN.lock().unwrap_or_else(|e| e.into_inner());
    let open = open.get_or_insert_default();
    if let Some(device) = open.get(label).and_then(Weak::upgrade) {
        return Ok(device);
    }
    let device = match parse_gpu_index(label) {
        _ if label == "cpu" => Device::start(|| Cpu::open(count_threads()))?,
        Some(index) => Device::start(move || Gpu::open_with(index, None))?,
        None => return Err(unknown_label_error(label)),
    };
    open.insert(label.into(), Arc::downgrade(&device));
    Ok(device)
}

/// Parses a GPU's label: `Some(None)` for `gpu`, `Some(Some(N))` for `gpu:N`, `None` for other labels.
fn parse_gpu_index(label: &str) -> Option<Option<usize>> {
    match label {
        "gpu" => Some(None),
        _ => label.strip_prefix("gpu:").and_then(|n| n.parse().ok()).map(Some),
    }
}

fn unknown_label_error(label: &str) -> Error {
    let what = format!("unknown device \"{label}\"; use cpu, gpu, gpu:N, meta:cpu or meta:gpu");
    Error::new(Code::Option, what)
}

/// The number of the cpu's threads: LOWRANK_THREADS, or one per core.
pub fn count_threads() -> usize {
    let requested = std::env::var("LOWRANK_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    match requested {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n,
    }
}
