//! Reads of values from a device.

use std::sync::{Arc, Mutex};

use lowrank_engine::context::Value;
use lowrank_engine::error::{self as engine, fail_code};
use napi::bindgen_prelude::{Either, Env, Object, Uint8ArraySlice};
use napi_derive::napi;

use super::{Failure, Session, to_failure};
use crate::error::{Result, to_js_error, wrap_napi_error};

/// Pending reads, and the promise to resolve once all are complete.
struct PendingReads<D> {
    read: Vec<Option<engine::Result<Vec<u8>>>>,
    left: usize,
    deferred: Option<D>,
}

/// Copies into memory that JavaScript owns: Electron rejects foreign buffers.
pub(crate) fn copy_to_js(
    env: &Env,
    bytes: engine::Result<Vec<u8>>,
) -> napi::Result<Either<Uint8ArraySlice<'static>, Failure>> {
    match bytes {
        Ok(bytes) => Uint8ArraySlice::copy_from(env, &bytes[..]).map(Either::A),
        Err(error) => Ok(Either::B(to_failure(error))),
    }
}

#[napi]
impl Session {
    /// Reads the values as bytes. The façade turns a `Failure` into a rejection.
    #[napi(catch_unwind, ts_return_type = "Promise<Uint8Array | Failure>")]
    pub fn read<'env>(&self, env: &'env Env, id: u32) -> Result<Object<'env>> {
        let value = self.with_state(|s| Ok(s.tensor(id)?.value()))?;
        let (deferred, promise) = env.create_deferred().map_err(wrap_napi_error)?;
        value
            .context()
            .read(&value, Box::new(move |bytes| deferred.resolve(move |env: Env| copy_to_js(&env, bytes))));
        Ok(promise)
    }

    /// Reads several tensors with one answer, in the given order.
    #[napi(catch_unwind, ts_return_type = "Promise<(Uint8Array | Failure)[]>")]
    pub fn read_all<'env>(&self, env: &'env Env, ids: &[u32]) -> Result<Object<'env>> {
        let values: Vec<Value> =
            self.with_state(|s| ids.iter().map(|id| Ok(s.tensor(*id)?.value())).collect())?;
        if values.is_empty() {
            return Err(to_js_error(fail_code(engine::Code::Internal, "readAll: of no tensor")));
        }
        let (deferred, promise) = env.create_deferred().map_err(wrap_napi_error)?;
        let reading = PendingReads {
            read: values.iter().map(|_| None).collect(),
            left: values.len(),
            deferred: Some(deferred),
        };
        let reading = Arc::new(Mutex::new(reading));
        for (i, value) in values.iter().enumerate() {
            let reading = reading.clone();
            let reply = move |bytes| {
                let mut reading = reading.lock().unwrap_or_else(|e| e.into_inner());
                reading.read[i] = Some(bytes);
                reading.left -= 1;
                if reading.left > 0 {
                    return;
                }
                let read = std::mem::take(&mut reading.read);
                let Some(deferred) = reading.deferred.take() else { return };
                deferred.resolve(move |env: Env| {
                    read.into_iter()
                        .flatten()
                        .map(|one| copy_to_js(&env, one))
                        .collect::<napi::Result<Vec<_>>>()
                });
            };
            value.context().read(value, Box::new(reply));
        }
        Ok(promise)
    }
}
