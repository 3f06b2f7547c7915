//! The tensor handle: a value, whether it requires a gradient, and the gradient.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::node::{Node, Parent};
use super::saved::RecomputedValue;
use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, accumulate, map};
use crate::trace::Pass;

/// The name of gradient sums in traces.
const SUMS: &str = "sum of gradients";

/// A value that may require a gradient.
#[derive(Clone)]
pub struct Tensor(Rc<Inner>);

struct Inner {
    id: u64,
    value: RefCell<Value>,
    requires_grad: Cell<bool>,
    edge: RefCell<Option<(Rc<Node>, usize)>>,
    grad: RefCell<Option<Value>>,
    /// The location for the gradient: a range of an optimizer's arena.
    grad_slot: RefCell<Option<Value>>,
}

impl Tensor {
    pub fn new(value: Value, requires_grad: bool) -> Tensor {
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(1) });
        let id = NEXT.with(|n| n.replace(n.get() + 1));
        Tensor(Rc::new(Inner {
            id,
            value: RefCell::new(value),
            requires_grad: Cell::new(requires_grad),
            edge: RefCell::new(None),
            grad: RefCell::new(None),
            grad_slot: RefCell::new(None),
        }))
    }

    pub fn value(&self) -> Value {
        self.0.value.borrow().clone()
    }

    /// Calls `f` with the value, without copying its handle.
    pub fn with_value<T>(&self, f: impl FnOnce(&Value) -> T) -> T {
        f(&self.0.value.borrow())
    }

    pub fn spec(&self) -> Spec {
        self.0.value.borrow().spec()
    }

    pub fn requires_grad(&self) -> bool {
        self.0.requires_grad.get()
    }

    /// Whether it is not the output of a recorded operation.
    pub fn is_leaf(&self) -> bool {
        self.0.edge.borrow().is_none()
    }

    /// Sets whether it requires a gradient.
    ///
    /// # Errors
    /// `ERR_NO_GRADIENT` for a tensor that an operation made, `ERR_DTYPE` unless it is f32.
    pub fn set_requires_grad(&self, on: bool) -> Result<()> {
        if !self.is_leaf() {
            fail!(
                NoGradient,
                "requiresGrad: only a leaf tensor can be set to require a gradient; an operation made this one"
            );
        }
        if on && self.spec().dtype != DType::F32 {
            fail!(Dtype, "requiresGrad: gradients are f32, this tensor is {}", self.spec().dtype);
        }
        if on && self.value().storage.is_offloaded() {
            fail!(
                NoGradient,
                "requiresGrad: an offloaded weight cannot be trained; load the model without offloading"
            );
        }
        self.0.requires_grad.set(on);
        Ok(())
    }

    pub fn grad(&self) -> Option<Value> {
        self.0.grad.borrow().clone()
    }

    /// Sets or removes the gradient. Later backward passes add to it in place.
    pub fn set_grad(&self, grad: Option<Value>) {
        *self.0.grad.borrow_mut() = grad;
    }

    /// Checks that `grad` fits this tensor.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` and `ERR_DEVICE_MISMATCH` when `grad` is no gradient of this tensor.
    pub fn check_grad(&self, grad: &Value) -> Result<()> {
        let value = self.value();
        if grad.spec() != value.spec() {
            fail!(ShapeMismatch, "grad: {} is no gradient of {}", grad.spec(), value.spec());
        }
        if !Rc::ptr_eq(grad.context(), value.context()) {
            fail!(
                DeviceMismatch,
                "grad: the gradient is on {}, the tensor on {}",
                grad.context().profile.label,
                value.context().profile.label
            );
        }
        Ok(())
    }

    /// Moves the tensor to `value`, which has the same elements, and its gradient to `grad_slot`; used by an
    /// optimizer's arena.
    pub fn move_to(&self, value: Value, grad_slot: Option<Value>) {
        *self.0.value.borrow_mut() = value;
        *self.0.grad_slot.borrow_mut() = grad_slot;
    }

    /// The range of an arena for its gradient.
    pub fn grad_slot(&self) -> Option<Value> {
        self.0.grad_slot.borrow().clone()
    }

    /// Removes the arena's range; a gradient that is stored there stays until it is removed.
    pub fn clear_grad_slot(&self) {
        *self.0.grad_slot.borrow_mut() = None;
    }

    /// The same value, outside the tape.
    pub fn detach(&self) -> Tensor {
        Tensor::new(self.value(), false)
    }

    /// Unique among the tensors of a thread.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    pub(super) fn edge(&self) -> Option<(Rc<Node>, usize)> {
        self.0.edge.borrow().clone()
    }

    /// Records that this tensor is output `index` of `node`.
    pub(super) fn set_edge(&self, node: Rc<Node>, index: usize) {
        self.0.requires_grad.set(true);
        *self.0.edge.borrow_mut() = Some((node, index));
    }

    /// How the value is recomputed, if its operation says that recomputing pays.
    pub(super) fn recomputation(&self) -> Option<Rc<RecomputedValue>> {
        let (node, output) = self.edge()?;
        if output > 0 {
            return None;
        }
        node.recomputed.borrow().clone()
    }

    pub(super) fn parent(&self) -> Parent {
        if !self.requires_grad() {
            return Parent::None;
        }
        match self.edge() {
            Some((node, i)) => Parent::Node(node, i),
            None => Parent::Leaf(self.clone()),
        }
    }

    /// The destination of a gradient, and whether it already holds one to add to; `None` if a first gradient needs new
    /// storage.
    pub(super) fn grad_destination(&self) -> Option<(Value, bool)> {
        match (self.grad(), self.grad_slot()) {
            (Some(sum), _) => Some((sum, true)),
            (None, slot) => slot.map(|slot| (slot, false)),
        }
    }

    /// Records that a gradient was added to `grad`, the destination from `grad_destination`.
    pub(super) fn accept_grad(&self, grad: Value) {
        grad.storage.record_write();
        self.set_grad(Some(grad));
    }

    /// Adds `d` to the gradient, in place if there is one. A first gradient gets new storage (or the arena's), since
    /// `d` may also be another tensor's gradient.
    pub(super) fn accumulate_grad(&self, d: Value) -> Result<()> {
        let cx = d.context().clone();
        let grad = cx.trace_operation(SUMS, Pass::Backward, || self.sum_gradients(&cx, d))?;
        self.set_grad(Some(grad));
        Ok(())
    }

    fn sum_gradients(&self, cx: &Rc<Context>, d: Value) -> Result<Value> {
        let (sum, slot) = (self.grad(), self.grad_slot());
        Ok(match (sum, slot) {
            (Some(sum), _) => {
                let d = if same_storage(&d, &sum) { copy_value(cx, &d)? } else { d };
                accumulate(cx, &sum, &d)?;
                sum.storage.record_write();
                sum
            }
            (None, Some(slot)) => {
                let d = if same_storage(&d, &slot) { copy_value(cx, &d)? } else { d };
                cx.copy(&d, &slot);
                slot.storage.record_write();
                slot
            }
            (None, None) if d.is_unshared() && d.bytes() as u64 == d.storage.bytes() => d,
            (None, None) => copy_value(cx, &d)?,
        })
    }
}

/// The sum of two gradients, in place if nothing else reads the first.
pub(super) fn add_gradients(cx: &Rc<Context>, sum: Value, d: Value) -> Result<Value> {
    cx.trace_operation(SUMS, Pass::Backward, || {
        if sum.is_unshared() {
            accumulate(cx, &sum, &d)?;
            return Ok(sum);
        }
        let y = cx.empty(sum.shape.clone(), DType::F32)?;
        map(cx, Function::Add, &[&sum, &d], &y)?;
        Ok(y)
    })
}

fn same_storage(a: &Value, b: &Value) -> bool {
    Rc::ptr_eq(&a.storage, &b.storage)
}

fn copy_value(cx: &Rc<Context>, value: &Value) -> Result<Value> {
    let copy = cx.empty(value.shape.clone(), value.dtype)?;
    cx.copy(value, &copy);
    Ok(copy)
}
