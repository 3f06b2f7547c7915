//! The state of a session: the tape, tensors by number, open devices.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use lowrank_cpu::quant::BlockType;
use lowrank_engine::context::{Context, Value};
use lowrank_engine::device::gpu::compiler;
use lowrank_engine::device::registry::{self, Opened};
use lowrank_engine::device::{Device, Sink};
use lowrank_engine::dtype::DType;
use lowrank_engine::error::{self as engine, fail_code};
use lowrank_engine::kernels::gemm::Precision;
use lowrank_engine::op::Op;
use lowrank_engine::optim::{Adafactor, Adam, AdamW, Answer, Exchange, Lion, Optimizer, Replica, Sgd};
use lowrank_engine::recording::{CancelToken, CpuUse};
use lowrank_engine::tape::{Tape, Tensor};
use lowrank_engine::tune::Notice;
use napi::bindgen_prelude::{Env, Float64Array};
use smallvec::SmallVec;

use crate::handles::Handles;

/// An optimizer of any rule.
pub(crate) enum AnyOptimizer {
    Adafactor(Optimizer<Adafactor>),
    Adam(Optimizer<Adam>),
    AdamW(Optimizer<AdamW>),
    Lion(Optimizer<Lion>),
    Sgd(Optimizer<Sgd>),
}

pub(crate) struct State {
    pub tape: Rc<Tape>,
    /// The rounding of factors in products by a weight.
    pub precision: Precision,
    /// The CPU use of recorded work.
    pub(super) cpu_use: CpuUse,
    pub(super) contexts: HashMap<String, Rc<Context>>,
    /// Device labels; `describe` refers to them by index.
    pub(super) labels: Vec<String>,
    pub(super) devices: Vec<Arc<Device>>,
    /// Borrowed separately: a shortage of memory in the middle of a call collects handles.
    pub handles: Rc<RefCell<Handles>>,
    /// The buffer for the description of the newest handle.
    pub(super) description_buffer: Option<Float64Array>,
    /// Called with the name of a device that has become idle.
    pub(super) idle_callback: Option<Arc<dyn Fn(String) + Send + Sync>>,
    /// Called with notices to a device's user.
    pub(super) notice_callback: Option<Notice>,
    pub(super) alive: CancelToken,
    pub(super) cancels: HashMap<u32, CancelToken>,
    pub optimizers: HashMap<u32, AnyOptimizer>,
    /// Replicas of optimizers' parameters on other devices.
    pub replicas: HashMap<u32, Rc<Replica>>,
    /// The number of optimizers and replicas created so far: the newest one's number.
    pub optimizer_count: u32,
    /// Exchanges of gradients that are not finished, by their optimizers.
    pub exchanges: HashMap<u32, Exchange>,
    /// The answers that devices wait for.
    pub answers: HashMap<u32, Answer>,
    pub answer_count: u32,
}

impl State {
    pub(super) fn new(env: &Env) -> State {
        State {
            tape: Rc::default(),
            precision: Precision::default(),
            cpu_use: CpuUse::default(),
            contexts: HashMap::new(),
            labels: Vec::new(),
            devices: Vec::new(),
            handles: Rc::new(RefCell::new(Handles::new(env.raw()))),
            description_buffer: None,
            idle_callback: None,
            notice_callback: None,
            alive: CancelToken::default(),
            cancels: HashMap::new(),
            optimizers: HashMap::new(),
            replicas: HashMap::new(),
            optimizer_count: 0,
            exchanges: HashMap::new(),
            answers: HashMap::new(),
            answer_count: 0,
        }
    }

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
                let context = Context::with_owner(
                    device.profile.clone(),
                    Sink::Thread(device.clone()),
                    self.alive.clone(),
                );
                if let Some(idle_callback) = self.idle_callback.clone() {
                    let label = label.to_string();
                    device.on_idle(self.alive.clone(), Arc::new(move || idle_callback(label.clone())));
                }
                if let (Some(notice_callback), Some(table)) = (self.notice_callback.clone(), &device.table) {
                    table.on_notice(self.alive.clone(), notice_callback);
                }
                if let Some(notice_callback) = &self.notice_callback {
                    compiler::take_warnings().iter().for_each(|text| notice_callback(text));
                }
                self.devices.push(device);
                context
            }
        };
        let handles = Rc::downgrade(&self.handles);
        context.on_shortage(move || {
            if let Some(handles) = handles.upgrade() {
                let dead = handles.borrow_mut().collect();
                drop(dead);
            }
        });
        context.use_cpu(self.cpu_use);
        self.contexts.insert(label.into(), context.clone());
        Ok(context)
    }

    pub fn tensor(&self, id: u32) -> engine::Result<Tensor> {
        self.handles
            .borrow()
            .get(id)
            .cloned()
            .ok_or_else(|| fail_code(engine::Code::Disposed, "a tensor is used after it was disposed"))
    }

    pub(super) fn number_device(&mut self, label: &str) -> u32 {
        let found = self.labels.iter().position(|l| l == label);
        let number = found.unwrap_or_else(|| {
            self.labels.push(label.into());
            self.labels.len() - 1
        });
        number as u32
    }

    pub fn insert(&mut self, tensor: Tensor) -> u32 {
        let description_buffer = tensor.with_value(|value| self.describe(value));
        let id = self.handles.borrow_mut().insert(tensor);
        if let Some(into) = &mut self.description_buffer {
            // SAFETY: Rust alone writes it, and JavaScript reads it only between calls.
            let into = unsafe { into.as_mut() };
            match into.get_mut(..=description_buffer.len()) {
                Some(into) => {
                    into[0] = id as f64;
                    into[1..].copy_from_slice(&description_buffer);
                }
                // The shape is too long for the buffer: the façade calls `describe`.
                None => into[0] = -1.0,
            }
        }
        id
    }

    /// Describes a value: the index of its dtype in `f32 f16 bf16 i32` and the block formats, the index of its device
    /// in `device_labels`, its rank, its shape.
    pub(super) fn describe(&mut self, value: &Value) -> SmallVec<[f64; 12]> {
        let dtype = match value.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
            DType::I32 => 3,
            DType::Block(kind) => {
                4 + BlockType::EVERY.iter().position(|one| *one == kind).expect("one of all")
            }
        };
        let device = self.number_device(&value.context().profile.label);
        let head = [dtype as f64, device as f64, value.shape.rank() as f64];
        head.into_iter().chain(value.shape.iter().map(|d| *d as f64)).collect()
    }

    /// Runs `op` on the tape and returns the handles of its first `count` outputs; further outputs serve its backward.
    pub fn apply(&mut self, op: impl Op, inputs: &[u32], count: usize) -> engine::Result<SmallVec<[u32; 4]>> {
        let inputs: SmallVec<[Tensor; 4]> =
            inputs.iter().map(|id| self.tensor(*id)).collect::<engine::Result<_>>()?;
        let tape = self.tape.clone();
        let outputs = tape.apply(op, &inputs.iter().collect::<SmallVec<[&Tensor; 4]>>())?;
        debug_assert!(outputs.len() >= count, "an operation has an output");
        Ok(outputs.into_iter().take(count).map(|output| self.insert(output)).collect())
    }

    pub(super) fn close(&mut self) {
        self.alive.cancel();
        // A device that waits for one continues.
        self.answers.clear();
        self.exchanges.clear();
        self.optimizers.clear();
        self.replicas.clear();
        let tensors = self.handles.borrow_mut().clear();
        drop(tensors);
        self.tape = Rc::default();
        self.contexts.clear();
        // Dropping the devices in the process's last environment joins their threads.
        self.devices.clear();
    }
}
