//! Random values for initial weights and sampling.

use lowrank_engine::drawn::drawn;
use lowrank_engine::random::Stream;
use lowrank_engine::tape::Tensor;
use napi::bindgen_prelude::Float32Array;
use napi_derive::napi;

use crate::error::Result;
use crate::session::{Session, dims};

/// Each draw has 2³² blocks of the generator to itself.
pub fn stream(seed: f64, draw: f64) -> Stream {
    Stream { seed: seed as u64, counter: (draw as u64) << 32 }
}

/// `size` values of U(low, high).
#[napi]
pub fn uniform(seed: f64, draw: f64, size: u32, low: f64, high: f64) -> Float32Array {
    stream(seed, draw).uniform(size as usize, low, high).into()
}

/// `size` values of N(0, 1).
#[napi]
pub fn normal(seed: f64, draw: f64, size: u32) -> Float32Array {
    stream(seed, draw).normal(size as usize, 0.0, 1.0).into()
}

#[napi]
impl Session {
    /// A tensor of U(low, high), of the values that `uniform` gives.
    #[napi]
    pub fn random_uniform(
        &self,
        device: String,
        shape: Vec<f64>,
        seed: f64,
        draw: f64,
        low: f64,
        high: f64,
    ) -> Result<u32> {
        let mut stream = stream(seed, draw);
        self.draws(device, shape, |count| stream.uniform(count, low, high))
    }

    /// A tensor of the values that `normal` gives, times `deviation`.
    #[napi]
    pub fn random_normal(
        &self,
        device: String,
        shape: Vec<f64>,
        seed: f64,
        draw: f64,
        deviation: f64,
    ) -> Result<u32> {
        let mut stream = stream(seed, draw);
        self.draws(device, shape, |count| {
            let mut values = stream.normal(count, 0.0, 1.0);
            values.iter_mut().for_each(|v| *v = (*v as f64 * deviation) as f32);
            values
        })
    }

    fn draws(&self, device: String, shape: Vec<f64>, draw: impl FnMut(usize) -> Vec<f32>) -> Result<u32> {
        self.with(|state| {
            let value = drawn(&state.context(&device)?, &dims(&shape)?[..], draw)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}
