//! Weights that the host keeps, and that a device has only while their block is used.

use std::rc::Rc;

use lowrank_engine::context::Offload;
use lowrank_engine::tape::Tensor;
use napi_derive::napi;

use crate::error::Result;
use crate::session::Session;

/// The offloaded weights of a model on one device.
#[napi(js_name = "Offload")]
pub struct OffloadedWeights {
    weights: Rc<Offload>,
}

#[napi]
impl OffloadedWeights {
    #[napi(catch_unwind, factory)]
    pub fn create() -> OffloadedWeights {
        OffloadedWeights { weights: Rc::default() }
    }

    /// Returns the bytes of the weights that are read from mapped files.
    #[napi(catch_unwind)]
    pub fn mapped_bytes(&self) -> f64 {
        self.weights.mapped_bytes() as f64
    }

    /// Returns the bytes of the weights that host memory keeps, since they were converted or quantised.
    #[napi(catch_unwind)]
    pub fn copied_bytes(&self) -> f64 {
        self.weights.copied_bytes() as f64
    }

    /// Returns the bytes of the weights that are on the device now.
    #[napi(catch_unwind)]
    pub fn resident_bytes(&self) -> f64 {
        self.weights.resident_bytes() as f64
    }
}

#[napi]
impl Session {
    /// Returns a frozen tensor on `device` with the values of tensor `id`, which is on the cpu. They are uploaded
    /// whenever block number `block` is used.
    #[napi(catch_unwind)]
    pub fn offload(&self, id: u32, device: String, offload: &OffloadedWeights, block: u32) -> Result<u32> {
        self.with_state(|state| {
            let from = state.tensor(id)?.value();
            let value = state.context(&device)?.offload(&from, &offload.weights, block as usize)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}
