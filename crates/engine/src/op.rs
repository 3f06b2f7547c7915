//! What an operation is: a value with its attributes and five answers.

use std::cell::Cell;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::shape::Shape;
use crate::trace::Pass;

/// What backward will read, as bit masks over inputs and outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub inputs: u32,
    pub outputs: u32,
}

impl Reads {
    /// Of a product of inputs 0 and 1: the gradient of each is made from the other.
    pub fn of_product(needs: &[bool]) -> Reads {
        Reads { inputs: needs[1] as u32 | (needs[0] as u32) << 1, outputs: 0 }
    }
}

/// Whether and from what a gradient is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradient {
    /// Backward exists and reads these.
    Reads(Reads),
    /// Piecewise constant (comparisons, argmax): the output asks for no gradient, as in PyTorch.
    Constant,
    /// There is none: an input that asks for a gradient is an error.
    Missing,
}

impl Gradient {
    pub const fn reads(inputs: u32, outputs: u32) -> Gradient {
        Gradient::Reads(Reads { inputs, outputs })
    }
}

/// Another operation that makes an operation's first output again, of what backward of that one keeps.
pub struct Remaking {
    pub op: Rc<dyn Op>,
    /// Its inputs, those of them that there are.
    pub of: Vec<Source>,
}

/// An input or an output of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Input(usize),
    Output(usize),
}

/// An operation. Attributes are its fields; it holds no tensor.
pub trait Op: std::fmt::Debug + 'static {
    fn name(&self) -> &'static str;

    /// Shapes and dtypes of the outputs: the one place that validates inputs.
    ///
    /// # Errors
    /// A message that starts with the operation's name and shows the shapes or dtypes.
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>>;

    /// Which inputs may be weights in blocks, as a mask.
    fn in_blocks(&self) -> u32 {
        0
    }

    /// The outputs, where they are an input's own elements under another shape: nothing runs then.
    fn alias(&self, _inputs: &[&Value]) -> Option<Vec<Value>> {
        None
    }

    /// Appends the launches that write `outputs`.
    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()>;

    /// Makes the outputs after the first alone, where that is less work than all of forward: a replay
    /// asks for it when nothing reads the first.
    fn forward_rest(&self, _cx: &Rc<Context>, _inputs: &[&Value]) -> Option<Result<Vec<Value>>> {
        None
    }

    fn gradient(&self) -> Gradient;

    /// What backward reads where only the inputs that `needs` names need a gradient: part of what
    /// `gradient()` declares. A product by something frozen, for one, need not keep the other factor.
    fn reads(&self, _needs: &[bool]) -> Reads {
        match self.gradient() {
            Gradient::Reads(reads) => reads,
            Gradient::Constant | Gradient::Missing => Reads::default(),
        }
    }

    /// Whether the first output is made again for a backward that reads it, rather than kept: it costs
    /// little, and backward of this operation keeps the inputs in any case, or what `remaking` names.
    fn is_remade(&self) -> bool {
        false
    }

    /// What makes the first output again where that is not this operation over its inputs.
    fn remaking(&self) -> Option<Remaking> {
        None
    }

    /// Appends the launches of the gradients of those inputs that `pass.needs` names, and returns one
    /// entry an input. A returned value may be a `d_out` itself. Called only where `gradient()` is
    /// `Reads`, some input needs a gradient and some output has one.
    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients>;
}

/// The gradients of an operation's inputs; `None` where none is needed.
pub type Gradients = Vec<Option<Value>>;

/// Where gradients of inputs may be added at once: parameters' own gradients, ranges of an arena; and
/// what other operations gave already for a value that this one read, too.
#[derive(Default)]
pub struct Destinations {
    /// By input, with whether the range holds a sum already.
    of: Vec<Option<(Value, bool)>>,
    taken: Cell<u32>,
}

impl Destinations {
    pub fn new(of: Vec<Option<(Value, bool)>>) -> Self {
        Destinations { of, taken: Cell::new(0) }
    }

    /// Where the gradient of input `i` is to be written, one that is there or a new value of
    /// `shape`; and whether what is there already is a sum to add to. It is returned from backward
    /// like any other.
    pub fn place(&self, cx: &Rc<Context>, i: usize, shape: impl Into<Shape>) -> Result<(Value, bool)> {
        let shape = shape.into();
        match self.of.get(i) {
            Some(Some((value, adds))) => {
                debug_assert_eq!(value.shape, shape);
                self.taken.set(self.taken.get() | 1 << i);
                Ok((value.clone(), *adds))
            }
            _ => Ok((cx.empty(shape, DType::F32)?, false)),
        }
    }

    /// Whether what is there was taken for input `i`: there is nothing left to add then.
    pub fn taken(&self, i: usize) -> bool {
        self.taken.get() >> i & 1 == 1
    }

    /// What was there for input `i`, whether it was taken or not.
    pub fn give_back(&mut self, i: usize) -> Option<Value> {
        self.of[i].take().map(|(value, _)| value)
    }
}

/// What backward is given: what the tape kept, what is wanted and what flows in.
#[derive(Default)]
pub struct Backward {
    pub inputs: Vec<Option<Value>>,
    pub outputs: Vec<Option<Value>>,
    pub input_specs: Vec<Spec>,
    pub output_specs: Vec<Spec>,
    /// Which inputs' gradients are wanted.
    pub needs: Vec<bool>,
    /// By output; `None` where nothing flows in.
    pub d_outs: Vec<Option<Value>>,
    pub into: Destinations,
}

impl Backward {
    /// After `op` made `outputs` of `inputs`: what it declared that backward reads, and no more.
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

    /// Input `i`, which the operation declared that backward reads.
    pub fn input(&self, i: usize) -> &Value {
        self.inputs[i].as_ref().expect("backward reads an input that the operation did not declare")
    }

    /// Output `i`, which the operation declared that backward reads.
    pub fn output(&self, i: usize) -> &Value {
        self.outputs[i].as_ref().expect("backward reads an output that the operation did not declare")
    }

    /// What flows into the first output, of operations whose other outputs nobody else sees.
    pub fn d_out(&self) -> &Value {
        self.d_outs[0].as_ref().expect("backward runs where a gradient flows in")
    }

    /// `d`, one of `d_outs`, to be written over: a copy where something else reads it.
    pub fn owned(&self, cx: &Rc<Context>, d: &Value) -> Result<Value> {
        if d.is_unshared() {
            return Ok(d.clone());
        }
        let copy = cx.empty(d.shape.clone(), d.dtype)?;
        cx.copy(d, &copy);
        Ok(copy)
    }

    /// What flows into the first output; zeros where only another output has a gradient.
    pub fn d_out_or_zeros(&self, cx: &Rc<Context>) -> Result<Value> {
        if let Some(d) = &self.d_outs[0] {
            return Ok(d.clone());
        }
        let zeros = cx.empty(self.output_specs[0].shape.clone(), DType::F32)?;
        cx.zero(&zeros);
        Ok(zeros)
    }
}

/// Runs an operation without a tape: validates, allocates, appends. Operations are composed of
/// others this way, forward and backward.
///
/// # Errors
/// The operation's own, and `ERR_DEVICE_MISMATCH` when inputs live on different devices.
pub fn run(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value]) -> Result<Vec<Value>> {
    run_in(cx, op, inputs, Pass::Forward)
}

/// `run`, in a pass that a trace tells apart.
///
/// # Errors
/// Those of `run`.
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
    cx.operation(op.name(), pass, || {
        let outputs: Vec<Value> =
            outputs.into_iter().map(|s| cx.empty(s.shape, s.dtype)).collect::<Result<_>>()?;
        op.forward(cx, inputs, &outputs)?;
        Ok(outputs)
    })
}

/// Refuses weights in blocks where an operation does not take them.
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

/// `run`, whose output `at` is written where there is room for it: into `place`, of the output's shape.
///
/// # Errors
/// Those of `run`; `ERR_INTERNAL` where `place` is not as the output.
pub fn run_into(
    cx: &Rc<Context>,
    op: &dyn Op,
    inputs: &[&Value],
    at: usize,
    place: Value,
) -> Result<Vec<Value>> {
    let specs: Vec<Spec> = inputs.iter().map(|v| v.spec()).collect();
    check_blocks(op, &specs)?;
    let outputs = op.outputs(&specs.iter().collect::<Vec<_>>())?;
    if outputs[at] != place.spec() {
        fail!(Internal, "{}: {} is not written into {}", op.name(), outputs[at], place.spec());
    }
    cx.operation(op.name(), Pass::Forward, || {
        let made =
            |(i, s): (usize, Spec)| if i == at { Ok(place.clone()) } else { cx.empty(s.shape, s.dtype) };
        let outputs: Vec<Value> = outputs.into_iter().enumerate().map(made).collect::<Result<_>>()?;
        op.forward(cx, inputs, &outputs)?;
        place.storage.written();
        Ok(outputs)
    })
}

/// `run` for an operation with one output.
pub fn run1(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value]) -> Result<Value> {
    Ok(run(cx, op, inputs)?.swap_remove(0))
}
