//! Random values for initial weights and sampling.

use lowrank_engine::random::Stream;
use napi::bindgen_prelude::Float32Array;
use napi_derive::napi;

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
