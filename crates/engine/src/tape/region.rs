//! A region: operations that are rematerialised when backward reaches them (gradient checkpointing, Chen et al. 2016).
//!
//! It keeps its external inputs and the operations; a replay computes the values that its nodes' backward reads, and
//! then the region releases the rest.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use super::node::{Node, SavedValues};
use super::saved::Saved;
use super::tensor::Tensor;
use crate::context::Value;
use crate::error::Result;
use crate::fail;
use crate::op::{Op, run_in};
use crate::trace::Pass;

pub struct Region {
    ops: RefCell<Vec<RegionOp>>,
    /// Whether operations may still be added.
    open: Cell<bool>,
}

struct RegionOp {
    op: Rc<dyn Op>,
    inputs: Vec<RegionInput>,
    node: Option<Weak<Node>>,
}

enum RegionInput {
    /// An input from outside, with its storage's version.
    External(Value, u64),
    /// An output of an operation of the region.
    Internal(usize, usize),
}

/// A region that is being recorded.
pub struct OpenRegion {
    pub region: Rc<Region>,
    /// The operation and output that made each tensor of the region, by tensor id.
    sources: HashMap<u64, (usize, usize)>,
}

impl OpenRegion {
    pub fn new() -> OpenRegion {
        let region = Rc::new(Region { ops: RefCell::default(), open: Cell::new(true) });
        OpenRegion { region, sources: HashMap::new() }
    }

    /// Adds an operation that has run.
    pub fn add(&mut self, op: &Rc<dyn Op>, inputs: &[&Tensor], values: &[Value], outputs: &[Tensor]) {
        let mut ops = self.region.ops.borrow_mut();
        let inputs = inputs
            .iter()
            .zip(values)
            .map(|(t, v)| match self.sources.get(&t.id()) {
                Some(&(op, out)) => RegionInput::Internal(op, out),
                None => RegionInput::External(v.clone(), v.storage.version()),
            })
            .collect();
        for (out, t) in outputs.iter().enumerate() {
            self.sources.insert(t.id(), (ops.len(), out));
        }
        ops.push(RegionOp { op: op.clone(), inputs, node: None });
    }

    /// Sets the node of the operation that was added last.
    pub fn add_node(&mut self, node: &Rc<Node>) {
        let mut ops = self.region.ops.borrow_mut();
        ops.last_mut().expect("added just before").node = Some(Rc::downgrade(node));
    }
}

impl Drop for OpenRegion {
    fn drop(&mut self) {
        self.region.open.set(false);
    }
}

impl RegionOp {
    /// Inputs that the region computed: the operation and output that computed it, and its input index here.
    fn internal_inputs(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.inputs.iter().enumerate().filter_map(|(k, input)| match input {
            RegionInput::Internal(from, out) => Some((*from, *out, k)),
            RegionInput::External(..) => None,
        })
    }

    /// Runs the operation; without its first output if nothing reads it and the others can be computed alone.
    fn run(&self, inputs: &[&Value], first: bool) -> Result<Vec<Option<Value>>> {
        let cx = inputs[0].context();
        cx.load_offloaded(inputs.iter().copied())?;
        let rest = || self.op.forward_rest(cx, inputs);
        if !first && let Some(rest) = cx.trace_operation(self.op.name(), Pass::Replay, rest) {
            return Ok([None].into_iter().chain(rest?.into_iter().map(Some)).collect());
        }
        Ok(run_in(cx, &*self.op, inputs, Pass::Replay)?.into_iter().map(Some).collect())
    }
}

impl Region {
    /// Runs the region forward again, except for outputs that nothing reads, and stores the values that its nodes'
    /// backward reads.
    ///
    /// # Errors
    /// `ERR_MODIFIED` if an external input that is read was written in place.
    pub fn replay(&self) -> Result<()> {
        let ops = self.ops.borrow();
        let nodes: Vec<Option<Rc<Node>>> =
            ops.iter().map(|o| o.node.as_ref().and_then(Weak::upgrade).filter(|n| n.is_deferred())).collect();
        let reads: Vec<_> = nodes.iter().map(|n| n.as_ref().map(|n| n.reads()).unwrap_or_default()).collect();

        // Determines the operations that run, because a backward or a later running operation reads their outputs, and
        // the last reader of each output. In descending order, inputs come before their readers. The first output is
        // the expensive one: if nothing reads the first output of a low-rank layer, only h is computed.
        let mut runs = vec![false; ops.len()];
        let mut first = vec![false; ops.len()];
        let mut last_use = vec![0; ops.len()];
        for i in (0..ops.len()).rev() {
            runs[i] |= reads[i].outputs != 0;
            first[i] |= reads[i].outputs & 1 == 1;
            for (from, out, k) in ops[i].internal_inputs() {
                if runs[i] || reads[i].inputs >> k & 1 == 1 {
                    runs[from] = true;
                    first[from] |= out == 0;
                    last_use[from] = last_use[from].max(i);
                }
            }
        }
        let mut outputs_of: Vec<Option<Vec<Option<Value>>>> = vec![None; ops.len()];
        for (i, entry) in ops.iter().enumerate() {
            // An operation that does not run may still have a backward that reads its inputs.
            let mut inputs = Vec::with_capacity(entry.inputs.len());
            for (k, input) in entry.inputs.iter().enumerate() {
                let read = runs[i] || reads[i].inputs >> k & 1 == 1;
                inputs.push(match input {
                    _ if !read => None,
                    RegionInput::External(value, version) if value.storage.version() != *version => fail!(
                        Modified,
                        "backward: a tensor of shape {} that a checkpoint starts from was changed in place",
                        value.shape
                    ),
                    RegionInput::External(value, _) => Some(value.clone()),
                    RegionInput::Internal(from, out) => {
                        outputs_of[*from].as_ref().and_then(|m| m[*out].clone())
                    }
                });
            }
            if runs[i] {
                let refs: Vec<&Value> = inputs.iter().map(|v| v.as_ref().expect("it runs")).collect();
                outputs_of[i] = Some(entry.run(&refs, first[i])?);
            }
            if let Some(node) = &nodes[i] {
                let outputs = match &outputs_of[i] {
                    Some(values) => values.iter().map(|v| v.as_ref().map(Saved::of)).collect(),
                    None => vec![None; node.output_specs.len()],
                };
                let inputs: Vec<_> = inputs.iter().map(|v| v.as_ref().map(Saved::of)).collect();
                *node.saved.borrow_mut() = SavedValues::select(reads[i], &inputs, &outputs);
            }
            drop(inputs);
            for from in entry.internal_inputs().map(|(from, ..)| from).chain([i]) {
                if last_use[from] <= i {
                    outputs_of[from] = None;
                }
            }
        }
        drop((nodes, ops));
        // All waiting nodes have their values, and no node will be added.
        if !self.open.get() {
            self.ops.borrow_mut().clear();
        }
        Ok(())
    }
}
