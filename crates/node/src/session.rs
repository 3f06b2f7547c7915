//! The use of the engine by one JavaScript environment: its tape, its tensors by number, its devices.

mod device;
mod hold;
mod reads;
mod state;

pub(crate) use reads::copy_to_js;
pub(crate) use state::{AnyOptimizer, State};

use std::cell::RefCell;
use std::rc::Rc;

use lowrank_engine::dtype::DType;
use lowrank_engine::error::{self as engine, fail_code};
use lowrank_engine::kernels::gemm::Precision;
use lowrank_engine::op::Op;
use lowrank_engine::tape::{Mode, Tensor};
use napi::bindgen_prelude::{Env, Float64Array, Int32Array, Uint8Array};
use napi_derive::napi;

use crate::error::{Result, to_js_error, wrap_napi_error};

/// Tensors are passed to JavaScript as numbers (handles), never as objects.
#[napi]
pub struct Session {
    pub(crate) state: Rc<RefCell<State>>,
    /// The environment's number, under which it acquires named locks.
    environment: u64,
}

/// An error on a device, which the façade turns into a rejected promise.
#[napi(object)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Session {
    /// Runs `op` on the tape and returns the handle of its first output; further outputs serve its backward.
    pub(crate) fn apply(&self, op: impl Op, inputs: &[u32]) -> Result<u32> {
        Ok(self.state.borrow_mut().apply(op, inputs, 1).map_err(to_js_error)?[0])
    }

    /// Like `apply`, but returns the handles of the first `count` outputs.
    pub(crate) fn apply_all(&self, op: impl Op, inputs: &[u32], count: usize) -> Result<Vec<u32>> {
        let made = self.state.borrow_mut().apply(op, inputs, count).map_err(to_js_error)?;
        Ok(made.to_vec())
    }

    pub(crate) fn with_state<T>(&self, f: impl FnOnce(&mut State) -> engine::Result<T>) -> Result<T> {
        f(&mut self.state.borrow_mut()).map_err(to_js_error)
    }
}

/// Converts numbers to sizes that need not belong to one tensor.
pub(crate) fn parse_sizes(given: &[f64]) -> engine::Result<Vec<usize>> {
    let size = |d: &f64| match *d {
        d if d >= 0.0 && d.fract() == 0.0 && d < 9e15 => Ok(d as usize),
        d => Err(fail_code(engine::Code::ShapeMismatch, format!("tensor: {d} is not a size"))),
    };
    given.iter().map(size).collect()
}

/// Converts numbers to a shape with an element count that can be addressed.
pub(crate) fn parse_shape(shape: &[f64]) -> engine::Result<Vec<usize>> {
    let sizes = parse_sizes(shape)?;
    // Ignores sizes of 0, since strides multiply the other sizes even in an empty shape.
    let elements = sizes.iter().filter(|d| **d > 0).try_fold(1usize, |n, d| n.checked_mul(*d));
    match elements.filter(|n| *n <= isize::MAX as usize / 8) {
        Some(_) => Ok(sizes),
        None => Err(fail_code(
            engine::Code::OutOfMemory,
            format!("a tensor of shape {sizes:?} is larger than any memory"),
        )),
    }
}

/// Parses a weight's dtype: one of `parse_dtype`, or a block format.
pub(crate) fn parse_weight_dtype(name: &str) -> engine::Result<DType> {
    let blocks = DType::parse(name).filter(|dtype| dtype.is_block());
    blocks.map_or_else(|| parse_dtype(name), Ok)
}

/// Parses a dtype for values and computations.
pub(crate) fn parse_dtype(name: &str) -> engine::Result<DType> {
    DType::parse(name).filter(|dtype| !dtype.is_block()).ok_or_else(|| {
        fail_code(engine::Code::Dtype, format!("unknown dtype \"{name}\"; use f32, f16, bf16 or i32"))
    })
}

#[napi]
impl Session {
    #[napi(catch_unwind, constructor)]
    pub fn new(env: Env) -> Result<Self> {
        let environment = hold::number_environment();
        let session = Session { state: Rc::new(RefCell::new(State::new(&env))), environment };
        // For an environment's ordinary end; the façade handles process.exit() and uncaught errors.
        let alive = session.state.borrow().alive.clone();
        env.add_env_cleanup_hook((), move |()| {
            alive.cancel();
            hold::release_all(environment);
        })
        .map_err(wrap_napi_error)?;
        Ok(session)
    }

    /// Cancels running work, drops every tensor and closes the devices.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.state.borrow_mut().close();
    }

    /// Creates a tensor from little-endian bytes.
    #[napi(catch_unwind)]
    pub fn tensor(
        &self,
        device: String,
        shape: Vec<f64>,
        dtype: String,
        data: Uint8Array,
        requires_grad: bool,
    ) -> Result<u32> {
        self.with_state(|state| {
            let (shape, dtype) = (parse_shape(&shape)?, self::parse_dtype(&dtype)?);
            let value = state.context(&device)?.upload(&shape[..], dtype, data.to_vec())?;
            let tensor = Tensor::new(value, false);
            if requires_grad {
                tensor.set_requires_grad(true)?;
            }
            Ok(state.insert(tensor))
        })
    }

    /// Describes a handle: the index of its dtype in `f32 f16 bf16 i32` and the block formats, the index of its device
    /// in `device_labels`, its rank, its shape.
    #[napi(catch_unwind)]
    pub fn describe(&self, id: u32) -> Result<Vec<f64>> {
        self.with_state(|s| {
            let value = s.tensor(id)?.value();
            Ok(s.describe(&value).to_vec())
        })
    }

    /// Sets a buffer for descriptions: each new handle writes its number there, then the numbers of `describe`. A
    /// separate call for each description would cost as much as an operation.
    #[napi(catch_unwind)]
    pub fn describe_into(&self, into: Float64Array) {
        self.state.borrow_mut().description_buffer = Some(into);
    }

    /// Returns the labels of the devices that hold or held tensors; `describe` refers to them by index.
    #[napi(catch_unwind)]
    pub fn device_labels(&self) -> Result<Vec<String>> {
        self.with_state(|s| Ok(s.labels.clone()))
    }

    /// Returns the tensor's version, which each write in place increments.
    #[napi(catch_unwind)]
    pub fn version(&self, id: u32) -> Result<f64> {
        self.with_state(|state| Ok(state.tensor(id)?.value().storage.version() as f64))
    }

    /// Returns the host copy of an i32 tensor that was uploaded and has not been overwritten since.
    #[napi(catch_unwind)]
    pub fn host_values(&self, id: u32) -> Result<Option<Int32Array>> {
        self.with_state(|state| {
            Ok(state.tensor(id)?.value().host().map(|host| Int32Array::new(host.to_vec())))
        })
    }

    #[napi(catch_unwind)]
    pub fn requires_grad(&self, id: u32) -> Result<bool> {
        self.with_state(|s| Ok(s.tensor(id)?.requires_grad()))
    }

    #[napi(catch_unwind)]
    pub fn set_requires_grad(&self, id: u32, on: bool) -> Result<()> {
        self.with_state(|s| s.tensor(id)?.set_requires_grad(on))
    }

    /// Returns a new handle of the gradient, or null.
    #[napi(catch_unwind)]
    pub fn grad(&self, id: u32) -> Result<Option<u32>> {
        self.with_state(|s| {
            let grad = s.tensor(id)?.grad();
            Ok(grad.map(|g| s.insert(Tensor::new(g, false))))
        })
    }

    #[napi(catch_unwind)]
    pub fn set_grad(&self, id: u32, grad: Option<u32>) -> Result<()> {
        self.with_state(|s| {
            let tensor = s.tensor(id)?;
            let grad = grad.map(|g| s.tensor(g).map(|t| t.value())).transpose()?;
            if let Some(grad) = &grad {
                tensor.check_grad(grad)?;
            }
            tensor.set_grad(grad);
            Ok(())
        })
    }

    #[napi(catch_unwind)]
    pub fn detach(&self, id: u32) -> Result<u32> {
        self.with_state(|s| {
            let tensor = s.tensor(id)?.detach();
            Ok(s.insert(tensor))
        })
    }

    /// Drops handles; ignores numbers that are already free.
    #[napi(catch_unwind)]
    pub fn dispose(&self, ids: &[u32]) {
        let handles = self.state.borrow().handles.clone();
        for id in ids {
            let tensor = handles.borrow_mut().remove(*id);
            drop(tensor);
        }
    }

    /// Makes V8 collect if at least `bytes` of tracked tensors may be garbage, and frees the collected tensors.
    #[napi(catch_unwind)]
    pub fn collect(&self, bytes: f64) {
        let handles = self.state.borrow().handles.clone();
        let dead = {
            let mut handles = handles.borrow_mut();
            if handles.uncollected_bytes() < bytes as u64 { Vec::new() } else { handles.collect() }
        };
        drop(dead);
    }

    /// Copies the elements of `from` into `to`, in place.
    #[napi(catch_unwind)]
    pub fn assign(&self, to: u32, from: u32) -> Result<()> {
        self.with_state(|s| {
            let (to, from) = (s.tensor(to)?.value(), s.tensor(from)?.value());
            if to.spec() != from.spec() {
                return Err(fail_code(
                    engine::Code::ShapeMismatch,
                    format!("copy: {} cannot be written into {}", from.spec(), to.spec()),
                ));
            }
            to.context().receive(&from, &to)?;
            to.storage.record_write();
            Ok(())
        })
    }

    /// Moves the values to another device. If they are there already, the new handle shares the tensor.
    #[napi(catch_unwind)]
    pub fn to_device(&self, id: u32, device: String) -> Result<u32> {
        self.with_state(|s| {
            let tensor = s.tensor(id)?;
            let from = tensor.value();
            if from.context().profile.label == device {
                return Ok(s.insert(tensor));
            }
            let to = s.context(&device)?.empty(from.shape.clone(), from.dtype)?;
            to.context().receive(&from, &to)?;
            Ok(s.insert(Tensor::new(to, false)))
        })
    }

    #[napi(catch_unwind)]
    pub fn set_mode(&self, no_grad: bool, region: u32) {
        self.state.borrow().tape.set_mode(Mode { no_grad, region });
    }

    /// Sets the rounding of factors in later products by a weight: `exact`, `bf16` or `f16`.
    #[napi(catch_unwind, ts_args_type = "precision: 'exact' | 'bf16' | 'f16'")]
    pub fn set_matmul_precision(&self, precision: String) -> Result<()> {
        self.with_state(|s| {
            s.precision = match precision.as_str() {
                "exact" => Precision::Exact,
                "bf16" => Precision::Bf16,
                "f16" => Precision::F16,
                other => {
                    let message = format!("setMatmulPrecision: products are exact, bf16 or f16, not {other}");
                    return Err(fail_code(engine::Code::Internal, message));
                }
            };
            Ok(())
        })
    }

    #[napi(catch_unwind)]
    pub fn open_region(&self, region: u32) {
        self.state.borrow().tape.open_region(region);
    }

    #[napi(catch_unwind)]
    pub fn close_region(&self, region: u32) {
        self.state.borrow().tape.close_region(region);
    }

    #[napi(catch_unwind)]
    pub fn backward(&self, id: u32, gradient: Option<u32>) -> Result<()> {
        self.with_state(|s| {
            let root = s.tensor(id)?;
            let gradient = gradient.map(|g| s.tensor(g).map(|t| t.value())).transpose()?;
            s.tape.backward(&root, gradient)
        })
    }
}

/// Returns the location of the last panic, and clears it.
#[napi(catch_unwind)]
pub fn last_panic() -> Option<String> {
    lowrank_engine::panic::take_location()
}

pub(crate) fn to_failure(error: engine::Error) -> Failure {
    Failure { code: error.code.as_str().into(), message: error.message }
}
