//! Random values for initial weights and sampling.

use lowrank_cpu::random::Stream;
use lowrank_engine::device::cpu::system;
use lowrank_engine::drawn::generate;
use lowrank_engine::error::{Code, fail_code};
use lowrank_engine::tape::Tensor;
use napi::bindgen_prelude::{Float32Array, Int32Array};
use napi_derive::napi;

use crate::error::{Result, to_js_error};
use crate::session::{Session, parse_shape};

/// The random stream of a draw. Each draw has 2³² blocks of the generator.
pub fn make_stream(seed: f64, draw: f64) -> Stream {
    Stream { seed: seed as u64, counter: (draw as u64) << 32 }
}

/// The most elements of a JavaScript array that every supported version can create.
const LONGEST: f64 = (1u64 << 30) as f64;

/// Returns an error for a number of values that exceeds the host's memory.
fn check_host_size(size: f64) -> Result<usize> {
    let free = system::read_free_memory().unwrap_or(u64::MAX);
    if (0.0..=LONGEST).contains(&size) && size * 4.0 <= free as f64 {
        return Ok(size as usize);
    }
    let longest = free.min(LONGEST as u64 * 4);
    let what = format!("{} bytes are asked for on the host, and {longest} are free there", size * 4.0);
    Err(to_js_error(fail_code(Code::OutOfMemory, what)))
}

/// Draws `size` values from U(low, high).
#[napi(catch_unwind)]
pub fn uniform(seed: f64, draw: f64, size: f64, low: f64, high: f64) -> Result<Float32Array> {
    Ok(make_stream(seed, draw).uniform(check_host_size(size)?, low, high).into())
}

/// Draws `size` values from N(0, 1).
#[napi(catch_unwind)]
pub fn normal(seed: f64, draw: f64, size: f64) -> Result<Float32Array> {
    Ok(make_stream(seed, draw).normal(check_host_size(size)?, 0.0, 1.0).into())
}

/// Draws `size` integers uniformly from [low, high), a range of at most 2³² numbers.
#[napi(catch_unwind)]
pub fn integers(seed: f64, draw: f64, size: f64, low: f64, high: f64) -> Result<Int32Array> {
    Ok(make_stream(seed, draw).integers(check_host_size(size)?, low as i32, high as i64).into())
}

/// Returns 0 to `size` − 1 in random order.
#[napi(catch_unwind)]
pub fn permutation(seed: f64, draw: f64, size: f64) -> Result<Int32Array> {
    Ok(make_stream(seed, draw).permutation(check_host_size(size)?).into())
}

#[napi]
impl Session {
    /// Creates a tensor of 1/e, with e drawn from the exponential distribution.
    #[napi(catch_unwind)]
    pub fn random_inverse_exponential(
        &self,
        device: String,
        shape: Vec<f64>,
        seed: f64,
        draw: f64,
    ) -> Result<u32> {
        let mut stream = make_stream(seed, draw);
        self.create_random(device, shape, |count| stream.inverse_exponential(count))
    }

    /// Creates a tensor of U(low, high) with the same values as `uniform`.
    #[napi(catch_unwind)]
    pub fn random_uniform(
        &self,
        device: String,
        shape: Vec<f64>,
        seed: f64,
        draw: f64,
        low: f64,
        high: f64,
    ) -> Result<u32> {
        let mut stream = make_stream(seed, draw);
        self.create_random(device, shape, |count| stream.uniform(count, low, high))
    }

    /// Creates a tensor with the values of `normal`, multiplied by `deviation`.
    #[napi(catch_unwind)]
    pub fn random_normal(
        &self,
        device: String,
        shape: Vec<f64>,
        seed: f64,
        draw: f64,
        deviation: f64,
    ) -> Result<u32> {
        let mut stream = make_stream(seed, draw);
        self.create_random(device, shape, |count| {
            let mut values = stream.normal(count, 0.0, 1.0);
            values.iter_mut().for_each(|v| *v = (*v as f64 * deviation) as f32);
            values
        })
    }

    fn create_random(
        &self,
        device: String,
        shape: Vec<f64>,
        draw: impl FnMut(usize) -> Vec<f32>,
    ) -> Result<u32> {
        self.with_state(|state| {
            let value = generate(&state.context(&device)?, &parse_shape(&shape)?[..], draw)?;
            Ok(state.insert(Tensor::new(value, false)))
        })
    }
}
