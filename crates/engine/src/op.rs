//! The interface of an operation.

use std::cell::Cell;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::shape::Shape;
use crate::trace::Pass;

/// The inputs and outputs that backward reads, as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackwardReads {
    pub inputs: u32,
    pub outputs: u32,
}

impl BackwardReads {
    /// For a product of inputs 0 and 1: the gradient of each depends on the other.
    pub fn of_product(needs: &[bool]) -> BackwardReads {
        BackwardReads { inputs: needs[1] as u32 | (needs[0] as u32) << 1, outputs: 0 }
    }
}

/// Whether a gradient exists, and the values that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradient {
    /// Backward exists and reads these.
    BackwardReads(BackwardReads),
    /// Piecewise constant (comparisons, argmax): the output requires no gradient, as in PyTorch.
    Constant,
    /// No gradient exists: an input that requires one is an error.
    Missing,
}

impl Gradient {
    pub const fn reads(inputs: u32, outputs: u32) -> Gradient {
        Gradient::BackwardReads(BackwardReads { inputs, outputs })
    }
}

/// Another operation that recomputes an operation's first output from values that its backward keeps.
pub struct Recomputation {
    pub op: Rc<dyn Op>,
    /// Its inputs.
    pub of: Vec<Source>,
}

/// An input or an output of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Input(usize),
    Output(usize),
}

/// An operation. Its fields are attributes; it holds no tensor.
pub trait Op: std::fmt::Debug + 'static {
    fn name(&self) -> &'static str;

    /// Shapes and dtypes of the outputs. This is the only place that validates inputs.
    ///
    /// # Errors
    /// A message that starts with the operation's name and shows the shapes or dtypes.
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>>;

    /// The inputs that may be weights in blocks, as a mask.
    fn in_blocks(&self) -> u32 {
        0
    }

    /// The outputs, if they are an input's elements in another shape; then nothing runs.
    fn alias(&self, _inputs: &[&Value]) -> Option<Vec<Value>> {
        None
    }

    /// Appends the launches that write `outputs`.
    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()>;

    /// Computes the outputs after the first, if that is cheaper than forward; a replay uses it when nothing reads the
    /// first output.
    fn forward_rest(&self, _cx: &Rc<Context>, _inputs: &[&Value]) -> Option<Result<Vec<Value>>> {
        None
    }

    fn gradient(&self) -> Gradient;

    /// The values that backward reads if only the inputs in `needs` need a gradient: a subset of `gradient()`. For
    /// example, a product by a frozen factor need not keep the other factor.
    fn reads(&self, _needs: &[bool]) -> BackwardReads {
        match self.gradient() {
            Gradient::BackwardReads(reads) => reads,
            Gradient::Constant | Gradient::Missing => BackwardReads::default(),
        }
    }

    /// Whether the first output is recomputed for a backward that reads it, instead of kept: if it is cheap, and this
    /// operation's backward keeps the inputs anyway, or the values that `recomputation` names.
    fn is_recomputed(&self) -> bool {
        false
    }

    /// The operation that recomputes the first output, if it is not this one.
    fn recomputation(&self) -> Option<Recomputation> {
        None
    }

    /// Appends the launches of the gradients of the inputs in `pass.needs`, and returns one entry per input. A returned
    /// value may be a `d_out` itself. Called only if `gradient()` is `BackwardReads`, some input needs a gradient and some
    /// output has one.
    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients>;
}

/// The gradients of an operation's inputs; `None` for inputs that need none.
pub type Gradients = Vec<Option<Value>>;

/// Existing gradients to which backward may add directly: parameters' gradients, ranges of an arena, and accumulated
/// gradients of values that this operation read, too.
#[derive(Default)]
pub struct Destinations {
    /// By input, with whether the range already holds a sum.
    existing: Vec<Option<(Value, bool)>>,
    taken: Cell<u32>,
}

impl Destinations {
    pub fn new(existing: Vec<Option<(Value, bool)>>) -> Self {
        Destinations { existing, taken: Cell::new(0) }
    }

    /// The destination for the gradient of input `i`: an existing one, or a new value of `shape`; and whether it holds
    /// a sum to add to. Backward returns it like any other gradient.
    pub fn choose_destination(
        &self,
        cx: &Rc<Context>,
        i: usize,
        shape: impl Into<Shape>,
    ) -> Result<(Value, bool)> {
        let shape = shape.into();
        match self.existing.get(i) {
            Some(Some((value, adds))) => {
                debug_assert_eq!(value.shape, shape);
                self.taken.set(self.taken.get() | 1 << i);
                Ok((value.clone(), *adds))
            }
            _ => Ok((cx.empty(shape, DType::F32)?, false)),
        }
    }

    /// Whether the existing gradient of input `i` was used, so that nothing is left to add.
    pub fn is_used(&self, i: usize) -> bool {
        self.taken.get() >> i & 1 == 1
    }

    /// The existing gradient of input `i`, used or not.
    pub fn take(&mut self, i: usize) -> Option<Value> {
        self.existing[i].take().map(|(value, _)| value)
    }
}

/// The arguments of backward: saved values, wanted gradients, and incoming gradients.
#[derive(Default)]
pub struct Backward {
    pub inputs: Vec<Option<Value>>,
    pub outputs: Vec<Option<Value>>,
    pub input_specs: Vec<Spec>,
    pub output_specs: Vec<Spec>,
    /// The inputs whose gradients are wanted.
    pub needs: Vec<bool>,
    /// The incoming gradient of each output; `None` if there is none.
    pub d_outs: Vec<Option<Value>>,
    pub into: Destinations,
}

impl Backward {
    /// Keeps the values that `op` declared that its backward reads, after it computed `outputs` from `inputs`.
    pub fn after(
        op: &dyn Op,
        inputs: &[Value],
        outputs: &[Value],
        needs: &[bool],
        d_outs: Gradients,
    ) -> Self {
        let reads = op.reads(needs);
        let pick = |mask: u32, v: &[Value]| {
            v.iter().enumerate().map(|(i, v)| (mask >> i & 1 == 1).then(|| v.clone())).collect()
        };
        Backward {
            inputs: pick(reads.inputs, inputs),
            outputs: pick(reads.outputs, outputs),
            input_specs: inputs.iter().map(Value::spec).collect(),
            output_specs: outputs.iter().map(Value::spec).collect(),
            needs: needs.to_vec(),
            d_outs,
            into: Destinations::default(),
        }
    }

    /// Input `i`, if the operation declared that backward reads it.
    pub fn input(&self, i: usize) -> &Value {
        self.inputs[i].as_ref().expect("backward reads an input that the operation did not declare")
    }

    /// Output `i`, if the operation declared that backward reads it.
    pub fn output(&self, i: usize) -> &Value {
        self.outputs[i].as_ref().expect("backward reads an output that the operation did not declare")
    }

    /// The incoming gradient of the first output, for operations whose other outputs are internal.
    pub fn d_out(&self) -> &Value {
        self.d_outs[0].as_ref().expect("backward runs where a gradient flows in")
    }

    /// `d`, one of `d_outs`, to be overwritten: a copy if something else reads it.
    pub fn take_or_copy(&self, cx: &Rc<Context>, d: &Value) -> Result<Value> {
        if d.is_unshared() {
            return Ok(d.clone());
        }
        let copy = cx.empty(d.shape.clone(), d.dtype)?;
        cx.copy(d, &copy);
        Ok(copy)
    }

    /// The incoming gradient of the first output; zeros if only another output has one.
    pub fn d_out_or_zeros(&self, cx: &Rc<Context>) -> Result<Value> {
        if let Some(d) = &self.d_outs[0] {
            return Ok(d.clone());
        }
        let zeros = cx.empty(self.output_specs[0].shape.clone(), DType::F32)?;
        cx.zero(&zeros);
        Ok(zeros)
    }
}

/// Runs an operation without a tape: validates, allocates, appends. Composed operations use it, forward and backward.
///
/// # Errors
/// The operation's errors; `ERR_DEVICE_MISMATCH` if inputs are on different devices.
pub fn run(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value]) -> Result<Vec<Value>> {
    run_in(cx, op, inputs, Pass::Forward)
}

/// `run`, attributed to a pass in traces.
///
/// # Errors
/// The errors of `run`.
pub fn run_in(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value], pass: Pass) -> Result<Vec<Value>> {
    for value in inputs {
        if !Rc::ptr_eq(value.context(), cx) {
            fail!(
                DeviceMismatch,
                "{}: an input is on {} and another on {}; move one with to(device)",
                op.name(),
                cx.profile.label,
                value.context().profile.label
            );
        }
    }
    let specs: SmallVec<[Spec; 4]> = inputs.iter().map(|v| v.spec()).collect();
    check_blocks(op, &specs)?;
    let outputs = op.outputs(&specs.iter().collect::<SmallVec<[&Spec; 4]>>())?;
    if let Some(outputs) = op.alias(inputs) {
        return Ok(outputs);
    }
    cx.load_offloaded(inputs.iter().copied())?;
    cx.trace_operation(op.name(), pass, || {
        let outputs: Vec<Value> =
            outputs.into_iter().map(|s| cx.empty(s.shape, s.dtype)).collect::<Result<_>>()?;
        op.forward(cx, inputs, &outputs)?;
        Ok(outputs)
    })
}

/// Returns an error for weights in blocks if the operation does not accept them.
fn check_blocks(op: &dyn Op, specs: &[Spec]) -> Result<()> {
    let refused = |(i, spec): &(usize, &Spec)| spec.dtype.is_block() && op.in_blocks() >> i & 1 == 0;
    if let Some((_, spec)) = specs.iter().enumerate().find(refused) {
        fail!(
            Dtype,
            "{}: takes no {spec}, a quantised weight, which layers and embeddings alone compute with; dequantise it \
             with to(\"f32\")",
            op.name()
        );
    }
    Ok(())
}

/// `run` with output `at` written to `destination`, which has the output's shape.
///
/// # Errors
/// The errors of `run`; `ERR_INTERNAL` if `destination` does not match the output.
pub fn run_into(
    cx: &Rc<Context>,
    op: &dyn Op,
    inputs: &[&Value],
    at: usize,
    destination: Value,
) -> Result<Vec<Value>> {
    let specs: Vec<Spec> = inputs.iter().map(|v| v.spec()).collect();
    check_blocks(op, &specs)?;
    let outputs = op.outputs(&specs.iter().collect::<Vec<_>>())?;
    if outputs[at] != destination.spec() {
        fail!(Internal, "{}: {} is not written into {}", op.name(), outputs[at], destination.spec());
    }
    cx.load_offloaded(inputs.iter().copied())?;
    cx.trace_operation(op.name(), Pass::Forward, || {
        let made = |(i, s): (usize, Spec)| {
            if i == at { Ok(destination.clone()) } else { cx.empty(s.shape, s.dtype) }
        };
        let outputs: Vec<Value> = outputs.into_iter().enumerate().map(made).collect::<Result<_>>()?;
        op.forward(cx, inputs, &outputs)?;
        destination.storage.record_write();
        Ok(outputs)
    })
}

/// `run` for an operation with one output.
pub fn run1(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value]) -> Result<Value> {
    Ok(run(cx, op, inputs)?.swap_remove(0))
}
