//! What the tape keeps for backward: a value, or how to make it again.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::context::{Spec, Storage, Value};
use crate::error::Result;
use crate::op::{Op, run_in};
use crate::shape::Shape;
use crate::trace::Pass;

/// An input or output of an operation that its backward reads.
#[derive(Clone)]
pub enum Saved {
    /// With the version that its storage had.
    Value(Value, u64),
    Remade(Rc<Remade>),
}

/// The first output of an operation that costs little beside the bytes it would hold, and whose
/// inputs are kept for its own backward in any case: a norm, an activation. It is made again when the
/// first backward asks for it, and held until the last has it.
pub struct Remade {
    op: Rc<dyn Op>,
    inputs: Vec<Saved>,
    first: Passing,
    again: RefCell<Option<Value>>,
}

/// The value that forward made: it is there as long as somebody else holds it.
struct Passing {
    spec: Spec,
    storage: Weak<Storage>,
    offset: usize,
    version: u64,
}

impl Remade {
    /// After `op` made `value` of `inputs`.
    pub fn new(op: Rc<dyn Op>, inputs: Vec<Saved>, value: &Value) -> Remade {
        let first = Passing {
            spec: value.spec(),
            storage: Rc::downgrade(&value.storage),
            offset: value.offset,
            version: value.storage.version(),
        };
        Remade { op, inputs, first, again: RefCell::default() }
    }

    fn value(&self) -> Result<Value> {
        let Passing { spec, storage, offset, .. } = &self.first;
        if let Some(storage) = storage.upgrade() {
            return Ok(Value { shape: spec.shape.clone(), dtype: spec.dtype, storage, offset: *offset });
        }
        if let Some(again) = &*self.again.borrow() {
            return Ok(again.clone());
        }
        let inputs = self.inputs.iter().map(Saved::value).collect::<Result<Vec<Value>>>()?;
        let refs: Vec<&Value> = inputs.iter().collect();
        let made = run_in(&refs[0].context().clone(), &*self.op, &refs, Pass::Replay)?.swap_remove(0);
        *self.again.borrow_mut() = Some(made.clone());
        Ok(made)
    }

    /// The shape of a tensor that was written in place since.
    fn modified(&self) -> Option<Shape> {
        if self.again.borrow().is_some() {
            return None;
        }
        match self.first.storage.upgrade() {
            Some(storage) => (storage.version() != self.first.version).then(|| self.first.spec.shape.clone()),
            None => self.inputs.iter().find_map(Saved::modified),
        }
    }
}

impl Saved {
    pub fn of(value: &Value) -> Saved {
        Saved::Value(value.clone(), value.storage.version())
    }

    /// The shape of a tensor that was written in place since, of it and what it is made of.
    pub fn modified(&self) -> Option<Shape> {
        match self {
            Saved::Value(value, version) => {
                (value.storage.version() != *version).then(|| value.shape.clone())
            }
            Saved::Remade(remade) => remade.modified(),
        }
    }

    /// The value, made again where it is not there.
    pub fn value(&self) -> Result<Value> {
        match self {
            Saved::Value(value, _) => Ok(value.clone()),
            Saved::Remade(remade) => remade.value(),
        }
    }
}
