//! A value that the tape saves for backward, or the recipe to recompute it.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::context::{Spec, Storage, Value};
use crate::error::Result;
use crate::op::{Op, run_in};
use crate::shape::Shape;
use crate::trace::Pass;

/// A saved input or output of an operation.
#[derive(Clone)]
pub enum Saved {
    /// A value, with its storage's version.
    Value(Value, u64),
    RecomputedValue(Rc<RecomputedValue>),
}

/// The first output of an operation that is cheap compared with its bytes, and whose inputs are saved for its own
/// backward in any case: a norm, an activation. It is recomputed when the first backward needs it, and kept until the
/// last one has it.
pub struct RecomputedValue {
    op: Rc<dyn Op>,
    inputs: Vec<Saved>,
    first: ForwardValue,
    recomputed: RefCell<Option<Value>>,
}

/// The value from the forward pass, available while another handle keeps it.
struct ForwardValue {
    spec: Spec,
    storage: Weak<Storage>,
    offset: usize,
    version: u64,
}

impl RecomputedValue {
    /// Creates it after `op` computed `value` from `inputs`.
    pub fn new(op: Rc<dyn Op>, inputs: Vec<Saved>, value: &Value) -> RecomputedValue {
        let first = ForwardValue {
            spec: value.spec(),
            storage: Rc::downgrade(&value.storage),
            offset: value.offset,
            version: value.storage.version(),
        };
        RecomputedValue { op, inputs, first, recomputed: RefCell::default() }
    }

    fn value(&self) -> Result<Value> {
        let ForwardValue { spec, storage, offset, .. } = &self.first;
        if let Some(storage) = storage.upgrade() {
            return Ok(Value { shape: spec.shape.clone(), dtype: spec.dtype, storage, offset: *offset });
        }
        if let Some(recomputed) = &*self.recomputed.borrow() {
            return Ok(recomputed.clone());
        }
        let inputs = self.inputs.iter().map(Saved::value).collect::<Result<Vec<Value>>>()?;
        let refs: Vec<&Value> = inputs.iter().collect();
        let value = run_in(&refs[0].context().clone(), &*self.op, &refs, Pass::Replay)?.swap_remove(0);
        *self.recomputed.borrow_mut() = Some(value.clone());
        Ok(value)
    }

    /// The shape of the saved tensor if it was written in place since.
    fn find_modified(&self) -> Option<Shape> {
        if self.recomputed.borrow().is_some() {
            return None;
        }
        match self.first.storage.upgrade() {
            Some(storage) => (storage.version() != self.first.version).then(|| self.first.spec.shape.clone()),
            None => self.inputs.iter().find_map(Saved::find_modified),
        }
    }
}

impl Saved {
    pub fn of(value: &Value) -> Saved {
        Saved::Value(value.clone(), value.storage.version())
    }

    /// The shape of a tensor that was written in place since, among it and its sources.
    pub fn find_modified(&self) -> Option<Shape> {
        match self {
            Saved::Value(value, version) => {
                (value.storage.version() != *version).then(|| value.shape.clone())
            }
            Saved::RecomputedValue(value) => value.find_modified(),
        }
    }

    /// The value, recomputed if needed.
    pub fn value(&self) -> Result<Value> {
        match self {
            Saved::Value(value, _) => Ok(value.clone()),
            Saved::RecomputedValue(value) => value.value(),
        }
    }
}
