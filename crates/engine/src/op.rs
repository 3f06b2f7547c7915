//! What an operation is: a value with its attributes and five answers.

use std::rc::Rc;

use crate::error::Result;
use crate::fail;
use crate::tensor::{Context, Spec, Value};

/// What backward will read, as bit masks over inputs and outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub inputs: u32,
    pub outputs: u32,
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

/// An operation. Attributes are its fields; it holds no tensor.
pub trait Op: std::fmt::Debug + 'static {
    fn name(&self) -> &'static str;

    /// Shapes and dtypes of the outputs: the one place that validates inputs.
    ///
    /// # Errors
    /// A message that starts with the operation's name and shows the shapes or dtypes.
    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>>;

    /// The outputs, where they are an input's own elements under another shape: nothing runs then.
    fn alias(&self, _inputs: &[&Value]) -> Option<Vec<Value>> {
        None
    }

    /// Appends the launches that write `outputs`.
    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()>;

    fn gradient(&self) -> Gradient;

    /// What backward reads where only the inputs that `needs` names need a gradient: part of what
    /// `gradient()` declares. A product by something frozen, for one, need not keep the other factor.
    fn reads(&self, _needs: &[bool]) -> Reads {
        match self.gradient() {
            Gradient::Reads(reads) => reads,
            Gradient::Constant | Gradient::Missing => Reads::default(),
        }
    }

    /// Appends the launches of the gradients of those inputs that `needs` names, and returns one
    /// entry an input. `d_outs[i]` is `None` when nothing flows into output i. A returned value may
    /// be `d_out` itself. Called only where `gradient()` is `Reads`.
    fn backward(
        &self,
        cx: &Rc<Context>,
        saved: &Saved,
        needs: &[bool],
        d_outs: &[Option<Value>],
    ) -> Result<Vec<Option<Value>>>;
}

/// What the tape kept for backward.
pub struct Saved {
    pub inputs: Vec<Option<Value>>,
    pub outputs: Vec<Option<Value>>,
    pub input_specs: Vec<Spec>,
    pub output_specs: Vec<Spec>,
}

impl Saved {
    /// Input `i`, which the operation declared that backward reads.
    pub fn input(&self, i: usize) -> &Value {
        self.inputs[i].as_ref().expect("backward reads an input that the operation did not declare")
    }

    /// Output `i`, which the operation declared that backward reads.
    pub fn output(&self, i: usize) -> &Value {
        self.outputs[i].as_ref().expect("backward reads an output that the operation did not declare")
    }
}

/// Runs an operation without a tape: validates, allocates, appends. Operations are composed of
/// others this way, forward and backward.
///
/// # Errors
/// The operation's own, and `ERR_DEVICE_MISMATCH` when inputs live on different devices.
pub fn run(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value]) -> Result<Vec<Value>> {
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
    let specs: Vec<Spec> = inputs.iter().map(|v| v.spec()).collect();
    let outputs = op.outputs(&specs.iter().collect::<Vec<_>>())?;
    if let Some(outputs) = op.alias(inputs) {
        return Ok(outputs);
    }
    let outputs: Vec<Value> =
        outputs.into_iter().map(|s| cx.empty(s.shape, s.dtype)).collect::<Result<_>>()?;
    op.forward(cx, inputs, &outputs)?;
    Ok(outputs)
}

/// `run` for an operation with one output.
pub fn run1(cx: &Rc<Context>, op: &dyn Op, inputs: &[&Value]) -> Result<Value> {
    Ok(run(cx, op, inputs)?.swap_remove(0))
}
