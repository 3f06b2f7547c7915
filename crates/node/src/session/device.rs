//! Calls on a session's devices: waiting, memory, cancellation, counters.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lowrank_engine::recording::CpuUse;
use napi::bindgen_prelude::{Env, Function, Object};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi_derive::napi;

use super::{Session, to_failure};
use crate::cpu_use;
use crate::error::{Result, wrap_napi_error};

/// Bytes in use on a device.
#[napi(object)]
pub struct MemoryReport {
    pub live: f64,
    pub reserved: f64,
    pub peak: f64,
    pub mapped: f64,
    pub tensors: u32,
}

#[napi]
impl Session {
    /// Settles when all work recorded on the device has run.
    #[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
    pub fn synchronize<'env>(&self, env: &'env Env, device: String) -> Result<Object<'env>> {
        let context = self.with_state(|s| s.context(&device))?;
        let (deferred, promise) = env.create_deferred().map_err(wrap_napi_error)?;
        context.fence(Box::new(move |done| deferred.resolve(move |_| Ok(done.err().map(to_failure)))));
        Ok(promise)
    }

    /// Submits pending commands to the device without waiting.
    #[napi(catch_unwind)]
    pub fn flush(&self, device: String) -> Result<()> {
        self.with_state(|s| {
            s.context(&device)?.flush();
            Ok(())
        })
    }

    #[napi(catch_unwind)]
    pub fn memory(&self, device: String) -> Result<MemoryReport> {
        self.with_state(|s| {
            let context = s.context(&device)?;
            // Tensors that V8 has collected no longer count as in use.
            let dead = s.handles.borrow_mut().take_dead();
            drop(dead);
            let memory = context.memory();
            let tensors =
                s.handles.borrow().iter().filter(|t| Rc::ptr_eq(t.value().context(), &context)).count();
            Ok(MemoryReport {
                live: memory.live as f64,
                reserved: memory.reserved as f64,
                peak: memory.peak as f64,
                mapped: memory.mapped as f64,
                tensors: tensors as u32,
            })
        })
    }

    /// Sets the number of threads (0 for the default) and the priority of work recorded or started after this call.
    #[napi(catch_unwind)]
    pub fn use_cpu(&self, threads: u32, background: bool) -> Result<()> {
        let allowed = CpuUse { threads: threads as usize, background };
        cpu_use::set_cpu_use(allowed);
        self.with_state(|s| {
            s.cpu_use = allowed;
            for context in s.contexts.values() {
                context.use_cpu(allowed);
            }
            Ok(())
        })
    }

    /// Returns a device's name, as its vendor gives it.
    #[napi(catch_unwind)]
    pub fn device_name(&self, device: String) -> Result<String> {
        self.with_state(|s| Ok(s.context(&device)?.profile.name.clone()))
    }

    /// Throws if `bytes` do not fit on the device in addition to the memory in use.
    #[napi(catch_unwind)]
    pub fn check_fits(&self, device: String, bytes: f64) -> Result<()> {
        self.with_state(|s| s.context(&device)?.check_fits(bytes as u64))
    }

    /// Returns the peak of live bytes since `trim`.
    #[napi(catch_unwind)]
    pub fn highest_live(&self, device: String) -> Result<f64> {
        self.with_state(|s| Ok(s.context(&device)?.highest_live() as f64))
    }

    /// Returns the floating-point operations recorded so far, also on a meta device.
    #[napi(catch_unwind)]
    pub fn work(&self, device: String) -> Result<f64> {
        self.with_state(|s| Ok(s.context(&device)?.work() as f64))
    }

    /// Frees the idle buffers of a device, or of all open devices; returns their bytes.
    #[napi(catch_unwind)]
    pub fn trim(&self, device: Option<String>) -> Result<f64> {
        self.with_state(|s| {
            let bytes: u64 = match device {
                Some(device) => s.context(&device)?.trim(),
                None => s.contexts.values().map(|context| context.trim()).sum(),
            };
            Ok(bytes as f64)
        })
    }

    /// Frees idle buffers and resets the peak.
    #[napi(catch_unwind)]
    pub fn restart_peak(&self, device: String) -> Result<()> {
        self.with_state(|s| {
            s.context(&device)?.restart_peak();
            Ok(())
        })
    }

    /// Sets a callback for devices opened after this call. It is called with a device's name when the device has been
    /// idle for some seconds. It does not keep the event loop alive.
    #[napi(catch_unwind)]
    pub fn on_rest(&self, callback: Function<String, ()>) -> Result<()> {
        let weak =
            callback.build_threadsafe_function::<String>().weak::<true>().build().map_err(wrap_napi_error)?;
        self.with_state(|s| {
            s.idle_callback = Some(Arc::new(move |label| {
                weak.call(label, ThreadsafeFunctionCallMode::NonBlocking);
            }));
            Ok(())
        })
    }

    /// Sets a callback for notices to the user of a device opened after this call. It does not keep the event loop
    /// alive.
    #[napi(catch_unwind)]
    pub fn on_notice(&self, callback: Function<String, ()>) -> Result<()> {
        let weak =
            callback.build_threadsafe_function::<String>().weak::<true>().build().map_err(wrap_napi_error)?;
        self.with_state(|s| {
            s.notice_callback = Some(Arc::new(move |text: &str| {
                weak.call(text.to_string(), ThreadsafeFunctionCallMode::NonBlocking);
            }));
            Ok(())
        })
    }

    /// Emits `text` as a device's notice, for tests.
    #[napi(catch_unwind)]
    pub fn notice_on_purpose(&self, device: String, text: String) -> Result<()> {
        self.with_state(|s| {
            if let Some(table) = s.context(&device)?.sink().table() {
                table.notify(&text);
            }
            Ok(())
        })
    }

    /// Panics in this call or on the device's thread, for tests.
    #[napi(catch_unwind)]
    pub fn panic_on_purpose(&self, device: Option<String>) -> Result<()> {
        self.with_state(|s| match device {
            None => panic!("on purpose"),
            Some(device) => {
                s.context(&device)?.fence(Box::new(|_| panic!("on purpose")));
                Ok(())
            }
        })
    }

    /// Assigns work recorded after this call to `token` (0: none), until the next call.
    #[napi(catch_unwind)]
    pub fn under(&self, device: String, token: u32) -> Result<()> {
        self.with_state(|s| {
            let cancel = (token != 0).then(|| s.cancels.entry(token).or_default().clone());
            s.context(&device)?.set_cancel_token(cancel);
            Ok(())
        })
    }

    /// Skips all work of `token` that has not run.
    #[napi(catch_unwind)]
    pub fn cancel(&self, token: u32) {
        if let Some(token) = self.state.borrow_mut().cancels.remove(&token) {
            token.cancel();
        }
    }

    #[napi(catch_unwind)]
    pub fn release_cancel(&self, token: u32) {
        self.state.borrow_mut().cancels.remove(&token);
    }

    /// Returns the number of submissions to a GPU so far, for tests; 0 for other devices.
    #[napi(catch_unwind)]
    pub fn submissions(&self, device: String) -> Result<f64> {
        self.with_state(|s| Ok(s.context(&device)?.submissions() as f64))
    }

    /// Returns the duration of the longest submission to a GPU so far, in milliseconds; 0 for other devices.
    #[napi(catch_unwind)]
    pub fn longest_submission(&self, device: String) -> Result<f64> {
        self.with_state(|s| Ok(s.context(&device)?.longest_submission().as_secs_f64() * 1e3))
    }

    /// Starts or stops counting launches by kernel; returns the counts so far, for tests.
    #[napi(catch_unwind)]
    pub fn count_launches(&self, device: String, on: bool) -> Result<HashMap<String, u32>> {
        self.with_state(|s| {
            let counted = s.context(&device)?.count_launches(on);
            Ok(counted.into_iter().map(|(k, n)| (k.to_string(), n as u32)).collect())
        })
    }
}
