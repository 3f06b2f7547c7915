//! One JavaScript environment's use of the engine: its tape, its tensors by number, its devices.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lowrank_engine::device::registry::{self, Opened};
use lowrank_engine::device::{Device, Sink};
use lowrank_engine::dtype::DType;
use lowrank_engine::error::{self as engine, fail_code};
use lowrank_engine::kernels::gemm::Precision;
use lowrank_engine::op::Op;
use lowrank_engine::recording::CancelToken;
use lowrank_engine::tape::{Mode, Tape, Tensor};
use lowrank_engine::tensor::Context;
use napi::bindgen_prelude::{Either, Env, Int32Array, Object, Uint8Array, Uint8ArraySlice};
use napi_derive::napi;

use crate::error::{Result, internal, thrown};
use crate::optimizer::AnyOptimizer;

/// Handles are numbers: a tensor never crosses the border.
#[napi]
pub struct Session {
    pub(crate) state: RefCell<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub tape: Rc<Tape>,
    /// What products by a weight are recorded with.
    pub precision: Precision,
    contexts: HashMap<String, Rc<Context>>,
    /// Devices by the numbers that `describe` gives.
    labels: Vec<String>,
    devices: Vec<Arc<Device>>,
    tensors: Vec<Option<Tensor>>,
    free: Vec<u32>,
    alive: CancelToken,
    cancels: HashMap<u32, CancelToken>,
    pub optimizers: HashMap<u32, AnyOptimizer>,
    /// How many there have been: the last one's number.
    pub made_optimizers: u32,
}

/// Bytes in use on a device.
#[napi(object)]
pub struct MemoryReport {
    pub live: f64,
    pub reserved: f64,
    pub peak: f64,
    pub mapped: f64,
    pub tensors: u32,
}

/// What went wrong on a device, for a promise that the façade rejects.
#[napi(object)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl State {
    pub fn context(&mut self, label: &str) -> engine::Result<Rc<Context>> {
        if self.alive.is_cancelled() {
            return Err(fail_code(engine::Code::Disposed, "the engine of this environment has been closed"));
        }
        if let Some(context) = self.contexts.get(label) {
            return Ok(context.clone());
        }
        let context = match registry::open(label)? {
            Opened::Meta(profile) => Context::new(profile, Sink::Meta),
            Opened::Device(device) => {
                let context =
                    Context::owned(device.profile.clone(), Sink::Thread(device.clone()), self.alive.clone());
                self.devices.push(device);
                context
            }
        };
        self.contexts.insert(label.into(), context.clone());
        Ok(context)
    }

    pub fn tensor(&self, id: u32) -> engine::Result<Tensor> {
        let found = self.tensors.get(id as usize).and_then(Option::as_ref);
        found
            .cloned()
            .ok_or_else(|| fail_code(engine::Code::Disposed, "a tensor is used after it was disposed"))
    }

    fn number_of(&mut self, label: &str) -> u32 {
        let found = self.labels.iter().position(|l| l == label);
        let number = found.unwrap_or_else(|| {
            self.labels.push(label.into());
            self.labels.len() - 1
        });
        number as u32
    }

    pub fn insert(&mut self, tensor: Tensor) -> u32 {
        match self.free.pop() {
            Some(id) => {
                self.tensors[id as usize] = Some(tensor);
                id
            }
            None => {
                self.tensors.push(Some(tensor));
                self.tensors.len() as u32 - 1
            }
        }
    }

    fn close(&mut self) {
        self.alive.cancel();
        self.optimizers.clear();
        self.tensors.clear();
        self.free.clear();
        self.tape = Rc::default();
        self.contexts.clear();
        // The last environment's drop joins the devices' threads.
        self.devices.clear();
    }
}

impl Session {
    /// Runs `op` on the tape and returns the handle of its first output; what else an operation
    /// makes is for its backward.
    pub(crate) fn apply(&self, op: impl Op, inputs: &[u32]) -> Result<u32> {
        Ok(self.apply_all(op, inputs, 1)?[0])
    }

    /// `apply`, with the handles of the first `count` outputs.
    pub(crate) fn apply_all(&self, op: impl Op, inputs: &[u32], count: usize) -> Result<Vec<u32>> {
        let mut state = self.state.borrow_mut();
        let inputs: Vec<Tensor> =
            inputs.iter().map(|id| state.tensor(*id)).collect::<engine::Result<_>>().map_err(thrown)?;
        let tape = state.tape.clone();
        let outputs = tape.apply(op, &inputs.iter().collect::<Vec<_>>()).map_err(thrown)?;
        debug_assert!(outputs.len() >= count, "an operation has an output");
        Ok(outputs.into_iter().take(count).map(|output| state.insert(output)).collect())
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> engine::Result<T>) -> Result<T> {
        f(&mut self.state.borrow_mut()).map_err(thrown)
    }
}

pub(crate) fn dims(shape: &[f64]) -> engine::Result<Vec<usize>> {
    shape
        .iter()
        .map(|d| match *d {
            d if d >= 0.0 && d.fract() == 0.0 && d < 9e15 => Ok(d as usize),
            d => Err(fail_code(engine::Code::ShapeMismatch, format!("tensor: {d} is not a size"))),
        })
        .collect()
}

pub(crate) fn dtype(name: &str) -> engine::Result<DType> {
    DType::parse(name).ok_or_else(|| {
        fail_code(engine::Code::Dtype, format!("dtype: \"{name}\" is none of f32, f16, bf16, i32"))
    })
}

#[napi]
impl Session {
    #[napi(constructor)]
    pub fn new(env: Env) -> Result<Self> {
        let session = Session { state: RefCell::default() };
        // On an environment's ordinary end; process.exit() and uncaught errors are the façade's.
        let alive = session.state.borrow().alive.clone();
        env.add_env_cleanup_hook((), move |()| alive.cancel()).map_err(internal)?;
        Ok(session)
    }

    /// Cancels what runs, drops every tensor and leaves the devices.
    #[napi]
    pub fn close(&self) {
        self.state.borrow_mut().close();
    }

    /// A tensor from little-endian bytes.
    #[napi]
    pub fn tensor(
        &self,
        device: String,
        shape: Vec<f64>,
        dtype: String,
        data: Uint8Array,
        requires_grad: bool,
    ) -> Result<u32> {
        self.with(|state| {
            let (shape, dtype) = (dims(&shape)?, self::dtype(&dtype)?);
            let value = state.context(&device)?.upload(&shape[..], dtype, data.to_vec())?;
            let tensor = Tensor::new(value, false);
            if requires_grad {
                tensor.set_requires_grad(true)?;
            }
            Ok(state.insert(tensor))
        })
    }

    /// The number of its dtype in `f32 f16 bf16 i32`, the number of its device in `device_labels`, and its
    /// shape: one call, since each costs more than what it asks.
    #[napi]
    pub fn describe(&self, id: u32) -> Result<Vec<u32>> {
        self.with(|s| {
            let value = s.tensor(id)?.value();
            let dtype = match value.dtype {
                DType::F32 => 0,
                DType::F16 => 1,
                DType::BF16 => 2,
                DType::I32 => 3,
            };
            let device = s.number_of(&value.context().profile.label);
            Ok([dtype, device].into_iter().chain(value.shape.iter().map(|d| *d as u32)).collect())
        })
    }

    /// The devices that tensors were found on, by number.
    #[napi]
    pub fn device_labels(&self) -> Result<Vec<String>> {
        self.with(|s| Ok(s.labels.clone()))
    }

    /// Raised by each write in place.
    #[napi]
    pub fn version(&self, id: u32) -> Result<f64> {
        self.with(|state| Ok(state.tensor(id)?.value().storage.version() as f64))
    }

    /// The values of an i32 tensor that were uploaded and not written over since.
    #[napi]
    pub fn host_values(&self, id: u32) -> Result<Option<Int32Array>> {
        self.with(|state| Ok(state.tensor(id)?.value().host().map(|host| Int32Array::new(host.to_vec()))))
    }

    #[napi]
    pub fn requires_grad(&self, id: u32) -> Result<bool> {
        self.with(|s| Ok(s.tensor(id)?.requires_grad()))
    }

    #[napi]
    pub fn set_requires_grad(&self, id: u32, on: bool) -> Result<()> {
        self.with(|s| s.tensor(id)?.set_requires_grad(on))
    }

    /// A new handle of the gradient, or null.
    #[napi]
    pub fn grad(&self, id: u32) -> Result<Option<u32>> {
        self.with(|s| {
            let grad = s.tensor(id)?.grad();
            Ok(grad.map(|g| s.insert(Tensor::new(g, false))))
        })
    }

    #[napi]
    pub fn set_grad(&self, id: u32, grad: Option<u32>) -> Result<()> {
        self.with(|s| {
            let tensor = s.tensor(id)?;
            let grad = grad.map(|g| s.tensor(g).map(|t| t.value())).transpose()?;
            if let Some(grad) = &grad {
                tensor.check_grad(grad)?;
            }
            tensor.set_grad(grad);
            Ok(())
        })
    }

    #[napi]
    pub fn detach(&self, id: u32) -> Result<u32> {
        self.with(|s| {
            let tensor = s.tensor(id)?.detach();
            Ok(s.insert(tensor))
        })
    }

    /// Drops handles; numbers that are gone already are passed over.
    #[napi]
    pub fn dispose(&self, ids: Vec<u32>) {
        let mut state = self.state.borrow_mut();
        for id in ids {
            let taken = state.tensors.get_mut(id as usize).and_then(Option::take);
            if taken.is_some() {
                state.free.push(id);
            }
        }
    }

    /// Copies the elements of `from` over those of `to`, in place.
    #[napi]
    pub fn assign(&self, to: u32, from: u32) -> Result<()> {
        self.with(|s| {
            let (to, from) = (s.tensor(to)?.value(), s.tensor(from)?.value());
            if to.spec() != from.spec() {
                return Err(fail_code(
                    engine::Code::ShapeMismatch,
                    format!("copy: {} cannot be written into {}", from.spec(), to.spec()),
                ));
            }
            to.context().receive(&from, &to)?;
            to.storage.written();
            Ok(())
        })
    }

    /// The values moved to another device; the same handle's tensor where it is there already.
    #[napi]
    pub fn to_device(&self, id: u32, device: String) -> Result<u32> {
        self.with(|s| {
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

    #[napi]
    pub fn set_mode(&self, no_grad: bool, region: u32) {
        self.state.borrow().tape.set_mode(Mode { no_grad, region });
    }

    /// Whether products by a bf16 weight round their other factor to bf16, from now on.
    #[napi]
    pub fn set_rounded_products(&self, on: bool) {
        self.state.borrow_mut().precision = if on { Precision::Bf16 } else { Precision::Exact };
    }

    #[napi]
    pub fn open_region(&self, region: u32) {
        self.state.borrow().tape.open_region(region);
    }

    #[napi]
    pub fn close_region(&self, region: u32) {
        self.state.borrow().tape.close_region(region);
    }

    #[napi]
    pub fn backward(&self, id: u32, gradient: Option<u32>) -> Result<()> {
        self.with(|s| {
            let root = s.tensor(id)?;
            let gradient = gradient.map(|g| s.tensor(g).map(|t| t.value())).transpose()?;
            s.tape.backward(&root, gradient)
        })
    }

    /// The values as bytes, or what went wrong: the façade makes a rejection of that.
    #[napi(ts_return_type = "Promise<Uint8Array | Failure>")]
    pub fn read<'env>(&self, env: &'env Env, id: u32) -> Result<Object<'env>> {
        let value = self.with(|s| Ok(s.tensor(id)?.value()))?;
        let (deferred, promise) = env.create_deferred().map_err(internal)?;
        value.context().read(
            &value,
            Box::new(move |bytes| {
                deferred.resolve(move |env: Env| match bytes {
                    // Copied into memory of JavaScript's own: Electron refuses foreign buffers.
                    Ok(bytes) => Uint8ArraySlice::copy_from(&env, &bytes[..]).map(Either::A),
                    Err(error) => Ok(Either::B(failure(error))),
                })
            }),
        );
        Ok(promise)
    }

    /// Settles when all that was recorded on the device has run.
    #[napi(ts_return_type = "Promise<null | Failure>")]
    pub fn synchronize<'env>(&self, env: &'env Env, device: String) -> Result<Object<'env>> {
        let context = self.with(|s| s.context(&device))?;
        let (deferred, promise) = env.create_deferred().map_err(internal)?;
        context.fence(Box::new(move |done| deferred.resolve(move |_| Ok(done.err().map(failure)))));
        Ok(promise)
    }

    /// Hands waiting commands to the device without waiting for anything.
    #[napi]
    pub fn flush(&self, device: String) -> Result<()> {
        self.with(|s| {
            s.context(&device)?.flush();
            Ok(())
        })
    }

    #[napi]
    pub fn memory(&self, device: String) -> Result<MemoryReport> {
        self.with(|s| {
            let context = s.context(&device)?;
            let memory = context.memory();
            let tensors =
                s.tensors.iter().flatten().filter(|t| Rc::ptr_eq(t.value().context(), &context)).count();
            Ok(MemoryReport {
                live: memory.live as f64,
                reserved: memory.reserved as f64,
                peak: memory.peak as f64,
                mapped: memory.mapped as f64,
                tensors: tensors as u32,
            })
        })
    }

    /// A device's name, as its vendor gives it.
    #[napi]
    pub fn device_name(&self, device: String) -> Result<String> {
        self.with(|s| Ok(s.context(&device)?.profile.name.clone()))
    }

    /// Throws where `bytes` do not fit on the device beside what is in use.
    #[napi]
    pub fn check_fits(&self, device: String, bytes: f64) -> Result<()> {
        self.with(|s| s.context(&device)?.check_fits(bytes as u64))
    }

    /// The highest that live bytes have been since `trim`.
    #[napi]
    pub fn highest_live(&self, device: String) -> Result<f64> {
        self.with(|s| Ok(s.context(&device)?.highest_live() as f64))
    }

    /// Gives idle buffers back and starts the peak anew.
    #[napi]
    pub fn trim(&self, device: String) -> Result<()> {
        self.with(|s| {
            s.context(&device)?.trim();
            Ok(())
        })
    }

    /// Work recorded from now on belongs to `token` (0: to none), until the next call.
    #[napi]
    pub fn under(&self, device: String, token: u32) -> Result<()> {
        self.with(|s| {
            let cancel = (token != 0).then(|| s.cancels.entry(token).or_default().clone());
            s.context(&device)?.under(cancel);
            Ok(())
        })
    }

    /// Skips all work of `token` that has not run.
    #[napi]
    pub fn cancel(&self, token: u32) {
        if let Some(token) = self.state.borrow_mut().cancels.remove(&token) {
            token.cancel();
        }
    }

    #[napi]
    pub fn release_cancel(&self, token: u32) {
        self.state.borrow_mut().cancels.remove(&token);
    }

    /// Starts (or ends) counting launches by kernel; returns those counted, for tests.
    #[napi]
    pub fn count_launches(&self, device: String, on: bool) -> Result<HashMap<String, u32>> {
        self.with(|s| {
            let counted = s.context(&device)?.count_launches(on);
            Ok(counted.into_iter().map(|(k, n)| (k.to_string(), n as u32)).collect())
        })
    }
}

pub(crate) fn failure(error: engine::Error) -> Failure {
    Failure { code: error.code.as_str().into(), message: error.message }
}
