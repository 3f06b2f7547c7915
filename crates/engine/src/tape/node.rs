//! A recorded operation: edges to the nodes of its inputs, and the values that its backward reads.

use std::cell::RefCell;
use std::rc::Rc;

use super::region::Region;
use super::saved::{RecomputedValue, Saved};
use super::tensor::Tensor;
use crate::context::{Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::op::{Backward, BackwardReads, Destinations, Op};

pub struct Node {
    pub sequence: u64,
    pub op: Rc<dyn Op>,
    pub parents: Vec<Parent>,
    pub input_specs: Vec<Spec>,
    pub output_specs: Vec<Spec>,
    pub saved: RefCell<SavedValues>,
    pub region: Option<Rc<Region>>,
    /// How its first output is recomputed, if it is not kept.
    pub recomputed: RefCell<Option<Rc<RecomputedValue>>>,
}

pub enum Parent {
    None,
    Leaf(Tensor),
    Node(Rc<Node>, usize),
}

pub enum SavedValues {
    Values {
        inputs: Vec<Option<Saved>>,
        outputs: Vec<Option<Saved>>,
    },
    /// The region must be replayed first.
    Deferred,
    Freed,
}

impl Parent {
    /// Whether both are the same tensor.
    fn is_same(&self, other: &Parent) -> bool {
        match (self, other) {
            (Parent::Leaf(a), Parent::Leaf(b)) => a.id() == b.id(),
            (Parent::Node(a, i), Parent::Node(b, j)) => Rc::ptr_eq(a, b) && i == j,
            _ => false,
        }
    }
}

impl SavedValues {
    /// Keeps the values that `reads` names and that exist.
    pub fn select(reads: BackwardReads, inputs: &[Option<Saved>], outputs: &[Option<Saved>]) -> SavedValues {
        let keep = |mask: u32, values: &[Option<Saved>]| {
            let named = |i: usize| mask >> i & 1 == 1;
            values.iter().enumerate().map(|(i, v)| v.clone().filter(|_| named(i))).collect()
        };
        SavedValues::Values { inputs: keep(reads.inputs, inputs), outputs: keep(reads.outputs, outputs) }
    }
}

impl Node {
    /// Whether each input needs a gradient.
    pub fn needs(&self) -> Vec<bool> {
        self.parents.iter().map(|p| !matches!(p, Parent::None)).collect()
    }

    pub fn reads(&self) -> BackwardReads {
        self.op.reads(&self.needs())
    }

    /// The existing gradients of inputs: a parameter's gradient, or the gradient that `lend` removes from an output of
    /// a node. An input that occurs twice is listed once.
    fn lend_destinations(&self, mut lend: impl FnMut(&Node, usize) -> Option<Value>) -> Destinations {
        let destinations = self.parents.iter().enumerate().map(|(i, parent)| {
            if self.parents[..i].iter().any(|other| other.is_same(parent)) {
                return None;
            }
            match parent {
                Parent::None => None,
                Parent::Leaf(leaf) => leaf.grad_destination(),
                Parent::Node(node, output) => lend(node, *output).map(|sum| (sum, true)),
            }
        });
        Destinations::new(destinations.collect())
    }

    pub fn is_deferred(&self) -> bool {
        matches!(&*self.saved.borrow(), SavedValues::Deferred)
    }

    /// Takes the kept values, after a replay of the region if it is deferred. `lend` returns the accumulated gradient
    /// of another node's output, if it may be added to in place.
    pub fn begin_backward(
        &self,
        d_outs: Vec<Option<Value>>,
        lend: impl FnMut(&Node, usize) -> Option<Value>,
    ) -> Result<Backward> {
        if self.is_deferred() {
            self.region.as_ref().expect("only a region's node is deferred").replay()?;
        }
        *self.recomputed.borrow_mut() = None;
        let mut saved = self.saved.borrow_mut();
        if let SavedValues::Values { inputs, outputs } = &*saved {
            for saved in inputs.iter().chain(outputs).flatten() {
                if let Some(shape) = saved.find_modified() {
                    fail!(
                        Modified,
                        "backward: a tensor of shape {shape} that {} needs was changed in place",
                        self.op.name()
                    );
                }
            }
        }
        let SavedValues::Values { inputs, outputs } = std::mem::replace(&mut *saved, SavedValues::Freed)
        else {
            fail!(NoGradient, "backward: {} was already differentiated and its tape freed", self.op.name());
        };
        let values = |kept: Vec<Option<Saved>>, specs: &[Spec]| {
            let values = kept.into_iter().zip(specs).map(|(saved, spec)| {
                saved.map(|saved| Ok(saved.value()?.reshape(spec.shape.clone()))).transpose()
            });
            values.collect::<Result<Vec<_>>>()
        };
        Ok(Backward {
            inputs: values(inputs, &self.input_specs)?,
            outputs: values(outputs, &self.output_specs)?,
            input_specs: self.input_specs.clone(),
            output_specs: self.output_specs.clone(),
            needs: self.needs(),
            d_outs,
            into: self.lend_destinations(lend),
        })
    }
}

impl Drop for Node {
    /// Long chains are dropped in a loop, since recursion would overflow the stack.
    fn drop(&mut self) {
        let mut todo: Vec<Parent> = std::mem::take(&mut self.parents);
        while let Some(parent) = todo.pop() {
            if let Parent::Node(node, _) = parent
                && let Some(mut node) = Rc::into_inner(node)
            {
                todo.append(&mut node.parents);
            }
        }
    }
}
