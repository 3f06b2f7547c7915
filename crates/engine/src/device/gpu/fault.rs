//! Errors that wgpu reports asynchronously, kept until the device's thread checks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{Code, Error, Result};

/// The first error of a device. By default wgpu would end the process.
#[derive(Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Default)]
struct Inner {
    any: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Faults {
    /// Registers for the errors of `device`.
    pub fn register(&self, device: &wgpu::Device) {
        let faults = self.clone();
        device.on_uncaptured_error(Arc::new(move |error| faults.latch(explain(error, "the GPU"))));
        let faults = self.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                faults.latch(Error::new(Code::DeviceLost, format!("the GPU was lost: {message}")));
            }
        });
    }

    pub fn latch(&self, error: Error) {
        self.0.first.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
        self.0.any.store(true, Ordering::Release);
    }

    /// # Errors
    /// The first fault, if there is one.
    pub fn check(&self) -> Result<()> {
        if !self.0.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let first = self.0.first.lock().unwrap_or_else(|e| e.into_inner());
        Err(first.clone().unwrap_or_else(|| Error::new(Code::DeviceLost, "the GPU failed")))
    }
}

/// Runs `f` and returns the error that wgpu reports for it, by kind.
pub fn catch_errors<T>(device: &wgpu::Device, what: &str, f: impl FnOnce() -> T) -> Result<T> {
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let result = f();
    let scopes = [validation.pop(), internal.pop()].map(pollster::block_on);
    let memory = pollster::block_on(memory.pop());
    match memory.into_iter().chain(scopes.into_iter().flatten()).next() {
        Some(error) => Err(explain(error, what)),
        None => Ok(result),
    }
}

fn explain(error: wgpu::Error, what: &str) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            Error::new(Code::OutOfMemory, format!("{what}: out of GPU memory"))
        }
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::new(Code::Internal, format!("{what}: {}", description.trim()))
        }
    }
}
