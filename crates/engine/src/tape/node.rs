//! One recorded operation: edges to what made its inputs, and what its backward reads.

use std::cell::RefCell;
use std::rc::Rc;

use super::region::Region;
use super::tensor::Tensor;
use crate::error::Result;
use crate::fail;
use crate::op::{Backward, Destinations, Op, Reads};
use crate::tensor::{Spec, Value};

pub struct Node {
    pub sequence: u64,
    pub op: Rc<dyn Op>,
    pub parents: Vec<Parent>,
    pub input_specs: Vec<Spec>,
    pub output_specs: Vec<Spec>,
    pub saved: RefCell<Kept>,
    pub region: Option<Rc<Region>>,
}

pub enum Parent {
    None,
    Leaf(Tensor),
    Node(Rc<Node>, usize),
}

/// A saved value, with the version that its storage had.
pub type Versioned = Option<(Value, u64)>;

pub enum Kept {
    Values {
        inputs: Vec<Versioned>,
        outputs: Vec<Versioned>,
    },
    /// The region replays first.
    Deferred,
    Freed,
}

impl Kept {
    /// Keeps what `reads` names. A value that is not there is not named.
    pub fn values(reads: Reads, inputs: &[Option<Value>], outputs: &[Option<Value>]) -> Kept {
        let keep = |mask: u32, values: &[Option<Value>]| {
            let named = |i: usize| mask >> i & 1 == 1;
            let note = |v: &Value| (v.clone(), v.storage.version());
            values.iter().enumerate().map(|(i, v)| v.as_ref().filter(|_| named(i)).map(note)).collect()
        };
        Kept::Values { inputs: keep(reads.inputs, inputs), outputs: keep(reads.outputs, outputs) }
    }
}

impl Node {
    /// Which inputs need a gradient.
    pub fn needs(&self) -> Vec<bool> {
        self.parents.iter().map(|p| !matches!(p, Parent::None)).collect()
    }

    pub fn reads(&self) -> Reads {
        self.op.reads(&self.needs())
    }

    /// The gradients of parameters among the inputs; a parameter given twice is named once.
    fn destinations(&self) -> Destinations {
        let leaf = |parent: &Parent| match parent {
            Parent::Leaf(leaf) => Some(leaf.clone()),
            _ => None,
        };
        let leaves: Vec<Option<Tensor>> = self.parents.iter().map(leaf).collect();
        let first = |i: usize, leaf: &Tensor| !leaves[..i].iter().flatten().any(|l| l.id() == leaf.id());
        let of = leaves
            .iter()
            .enumerate()
            .map(|(i, leaf)| leaf.as_ref().filter(|leaf| first(i, leaf)).and_then(Tensor::grad_destination));
        Destinations::new(of.collect())
    }

    pub fn is_deferred(&self) -> bool {
        matches!(&*self.saved.borrow(), Kept::Deferred)
    }

    /// Takes what was kept, replaying the region first where that was put off.
    pub fn begin_backward(&self, d_outs: Vec<Option<Value>>) -> Result<Backward> {
        if self.is_deferred() {
            self.region.as_ref().expect("only a region's node is deferred").replay()?;
        }
        let mut saved = self.saved.borrow_mut();
        if let Kept::Values { inputs, outputs } = &*saved {
            for (value, version) in inputs.iter().chain(outputs).flatten() {
                if value.storage.version() != *version {
                    fail!(
                        Modified,
                        "backward: a tensor of shape {} that {} needs was changed in place",
                        value.shape,
                        self.op.name()
                    );
                }
            }
        }
        let Kept::Values { inputs, outputs } = std::mem::replace(&mut *saved, Kept::Freed) else {
            fail!(NoGradient, "backward: {} was already differentiated and its tape freed", self.op.name());
        };
        let values = |kept: Vec<Versioned>| kept.into_iter().map(|v| v.map(|(value, _)| value)).collect();
        Ok(Backward {
            inputs: values(inputs),
            outputs: values(outputs),
            input_specs: self.input_specs.clone(),
            output_specs: self.output_specs.clone(),
            needs: self.needs(),
            d_outs,
            into: self.destinations(),
        })
    }
}

impl Drop for Node {
    /// Long chains are taken apart in a loop: a recursion would overflow the stack.
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
