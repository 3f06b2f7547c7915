//! Reverse-mode differentiation over operations, with regions for gradient checkpointing.
//!
//! A node keeps edges to the nodes of its inputs and the values that its backward reads, and nothing else; dropping the
//! last output frees everything that only it needed. A region saves only its external inputs: when backward reaches the
//! region, it is run forward again, except for outputs that no backward reads.

mod completion;
mod node;
mod region;
mod saved;
mod tensor;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

pub use completion::Completion;
use completion::FirstUses;
use node::{Node, Parent, SavedValues};
use region::OpenRegion;
use saved::{RecomputedValue, Saved};
pub use tensor::Tensor;

use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::error::Result;
use crate::fail;
use crate::op::{Gradient, Op, Recomputation, Source, run_in};
use crate::trace::Pass;

/// The tape of an environment.
#[derive(Default)]
pub struct Tape {
    sequence: Cell<u64>,
    regions: RefCell<HashMap<u32, OpenRegion>>,
    mode: Cell<Mode>,
}

/// The current recording mode; the TypeScript façade sets it from its asynchronous context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    pub no_grad: bool,
    /// The open region; 0 if there is none.
    pub region: u32,
}

impl Tape {
    pub fn mode(&self) -> Mode {
        self.mode.get()
    }

    pub fn set_mode(&self, mode: Mode) {
        self.mode.set(mode);
    }

    /// Opens region `id` (not 0); operations belong to it while `Mode::region` is `id`.
    pub fn open_region(&self, id: u32) {
        self.regions.borrow_mut().insert(id, OpenRegion::new());
    }

    /// Closes the region; its tensors are ordinary tensors from now on.
    pub fn close_region(&self, id: u32) {
        self.regions.borrow_mut().remove(&id);
    }

    /// Runs `op`, and records it if an input requires a gradient.
    ///
    /// # Errors
    /// The operation's errors; `ERR_NO_GRADIENT` if it has no gradient and an input requires one.
    pub fn apply(&self, op: impl Op, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let values: SmallVec<[Value; 4]> = inputs.iter().map(|t| t.value()).collect();
        let refs: SmallVec<[&Value; 4]> = values.iter().collect();
        let Some(first) = refs.first() else { fail!(Internal, "{}: no inputs", op.name()) };
        let cx = first.context().clone();
        let mode = self.mode.get();
        let gradient = op.gradient();
        let is_recorded = !mode.no_grad && inputs.iter().any(|t| t.requires_grad());
        if is_recorded && gradient == Gradient::Missing {
            fail!(NoGradient, "{}: has no gradient, and an input requires one", op.name());
        }
        let outputs = run_in(&cx, &op, &refs, Pass::Forward)?;
        if mode.region == 0 && (!is_recorded || gradient == Gradient::Constant) {
            return Ok(outputs.into_iter().map(|v| Tensor::new(v, false)).collect());
        }
        let op: Rc<dyn Op> = Rc::new(op);
        let tensors: Vec<Tensor> = outputs.iter().map(|v| Tensor::new(v.clone(), false)).collect();

        let mut regions = self.regions.borrow_mut();
        let mut open = regions.get_mut(&mode.region);
        if let Some(open) = &mut open {
            open.add(&op, inputs, &values, &tensors);
        }
        if !is_recorded || gradient == Gradient::Constant {
            return Ok(tensors);
        }
        let parents: Vec<Parent> = inputs.iter().map(|t| t.parent()).collect();
        let mut node = Node {
            sequence: self.sequence.replace(self.sequence.get() + 1),
            op,
            parents,
            input_specs: values.iter().map(Value::spec).collect(),
            output_specs: outputs.iter().map(Value::spec).collect(),
            saved: RefCell::new(SavedValues::Deferred),
            region: open.as_ref().map(|o| o.region.clone()),
            recomputed: RefCell::default(),
        };
        if open.is_none() {
            let recomputed: Vec<_> = inputs.iter().map(|t| t.recomputation()).collect();
            let save = |(value, recomputed): (&Value, &Option<Rc<RecomputedValue>>)| match recomputed {
                Some(recomputed) => Saved::RecomputedValue(recomputed.clone()),
                None => Saved::of(value),
            };
            let inputs: Vec<Saved> = values.iter().zip(&recomputed).map(save).collect();
            node.recomputed = RefCell::new(match recomputed.into_iter().next() {
                Some(Some(first)) if node.op.alias(&refs).is_some() => Some(first),
                _ if node.op.is_recomputed() => {
                    let (op, of) = match node.op.recomputation() {
                        Some(Recomputation { op, of }) => {
                            let save_source = |source: &Source| match *source {
                                Source::Input(i) => inputs.get(i).cloned(),
                                Source::Output(i) => outputs.get(i).map(Saved::of),
                            };
                            (op, of.iter().filter_map(save_source).collect())
                        }
                        None => (node.op.clone(), inputs.clone()),
                    };
                    Some(Rc::new(RecomputedValue::new(op, of, &outputs[0])))
                }
                _ => None,
            });
            let outputs: Vec<_> = outputs.iter().map(|v| Some(Saved::of(v))).collect();
            let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
            node.saved = RefCell::new(SavedValues::select(node.reads(), &inputs, &outputs));
        }
        let node = Rc::new(node);
        if let Some(open) = open {
            open.add_node(&node);
        }
        for (i, t) in tensors.iter().enumerate() {
            t.set_edge(node.clone(), i);
        }
        Ok(tensors)
    }

    /// `apply` for an operation with one output.
    pub fn apply1(&self, op: impl Op, inputs: &[&Tensor]) -> Result<Tensor> {
        Ok(self.apply(op, inputs)?.swap_remove(0))
    }

    /// Adds the gradient of `root` (times `d_out`; 1 for a single element) to every leaf that it depends on and that
    /// requires one. Values that backward has read are freed as it proceeds.
    ///
    /// # Errors
    /// `ERR_NO_GRADIENT`: no leaf requires one, the tape was freed, or `root` has several elements and no `d_out`.
    /// `ERR_MODIFIED`: a value that backward reads was written in place. `ERR_SHAPE_MISMATCH`, `ERR_DEVICE_MISMATCH`:
    /// `d_out` does not match `root`.
    pub fn backward(&self, root: &Tensor, d_out: Option<Value>) -> Result<()> {
        self.record_backward(root, d_out, None)
    }

    /// Runs `backward` from a single element, and reports each gradient to `completion` once its last part is recorded.
    ///
    /// # Errors
    /// The errors of `backward`.
    pub fn backward_reporting(&self, root: &Tensor, completion: &mut dyn Completion) -> Result<()> {
        self.record_backward(root, None, Some(completion))
    }

    fn record_backward(
        &self,
        root: &Tensor,
        d_out: Option<Value>,
        mut completion: Option<&mut dyn Completion>,
    ) -> Result<()> {
        if !root.requires_grad() {
            fail!(NoGradient, "backward: this tensor depends on nothing that requires a gradient");
        }
        let cx = root.value().context().clone();
        let d_out = first_gradient(&cx, &root.value(), d_out)?;
        let Some((node, index)) = root.edge() else { return root.accumulate_grad(d_out) };

        let mut uses = completion.is_some().then(|| FirstUses::collect(&node));
        if let (Some(completion), Some(uses)) = (&mut completion, &uses) {
            completion.expect(&uses.leaves());
        }
        let mut pending = Pending::default();
        pending.add(&cx, &node, index, d_out)?;
        drop(node);
        while let Some((node, d_outs)) = pending.next() {
            let mut pass = node.begin_backward(d_outs, |node, output| pending.lend(node, output))?;
            cx.load_offloaded(pass.inputs.iter().flatten())?;
            let d_inputs =
                cx.trace_operation(node.op.name(), Pass::Backward, || node.op.backward(&cx, &pass))?;
            let mut into = std::mem::take(&mut pass.into);
            // Dropped before the sums are computed, so that they can be in place.
            drop(pass);
            for (i, (parent, d)) in node.parents.iter().zip(d_inputs).enumerate() {
                if let Parent::Node(parent, output) = parent
                    && let Some(sum) = into.take(i)
                {
                    pending.restore(parent, *output, sum);
                }
                let Some(d) = d else { continue };
                debug_assert_eq!(d.shape, node.input_specs[i].shape, "{}", node.op.name());
                match parent {
                    Parent::None => {}
                    Parent::Leaf(leaf) if into.is_used(i) => leaf.accept_grad(d),
                    Parent::Leaf(leaf) => leaf.accumulate_grad(d)?,
                    Parent::Node(..) if into.is_used(i) => {}
                    Parent::Node(parent, output) => pending.add(&cx, parent, *output, d)?,
                }
            }
            if let (Some(completion), Some(uses)) = (&mut completion, &mut uses) {
                // No gradient reaches the operations between this one and the next.
                let passed = pending.latest().map_or(0, |next| next + 1);
                while let Some(leaf) = uses.next_complete(passed) {
                    completion.complete(&leaf);
                }
            }
        }
        Ok(())
    }
}

/// The initial gradient of backward.
fn first_gradient(cx: &Rc<Context>, value: &Value, d_out: Option<Value>) -> Result<Value> {
    let Some(d) = d_out else {
        if value.size() != 1 {
            fail!(NoGradient, "backward: a tensor of shape {} needs a gradient to start from", value.shape);
        }
        return cx.upload(value.shape.clone(), value.dtype, 1f32.to_le_bytes().to_vec());
    };
    if d.shape != value.shape || d.dtype != value.dtype {
        fail!(ShapeMismatch, "backward: the gradient is {}, the tensor {}", d.spec(), value.spec());
    }
    if !Rc::ptr_eq(d.context(), cx) {
        fail!(
            DeviceMismatch,
            "backward: the gradient is on {}, the tensor on {}",
            d.context().profile.label,
            cx.profile.label
        );
    }
    Ok(d)
}

/// Nodes that have gradients and have not run, latest first.
#[derive(Default)]
struct Pending {
    heap: BinaryHeap<u64>,
    nodes: HashMap<u64, (Rc<Node>, Vec<Option<Value>>)>,
}

impl Pending {
    fn add(&mut self, cx: &Rc<Context>, node: &Rc<Node>, output: usize, d: Value) -> Result<()> {
        let (_, d_outs) = self.nodes.entry(node.sequence).or_insert_with(|| {
            self.heap.push(node.sequence);
            (node.clone(), vec![None; node.output_specs.len()])
        });
        d_outs[output] = Some(match d_outs[output].take() {
            Some(sum) => tensor::add_gradients(cx, sum, d)?,
            None => d,
        });
        Ok(())
    }

    /// Takes out the accumulated gradient of an output if nothing else reads it, so that it may be written in place.
    fn lend(&mut self, node: &Node, output: usize) -> Option<Value> {
        let (_, d_outs) = self.nodes.get_mut(&node.sequence)?;
        d_outs[output].take_if(|sum| sum.is_unshared())
    }

    fn restore(&mut self, node: &Node, output: usize, sum: Value) {
        let (_, d_outs) = self.nodes.get_mut(&node.sequence).expect("it was lent from there");
        d_outs[output] = Some(sum);
    }

    /// The sequence number of the node that runs next.
    fn latest(&self) -> Option<u64> {
        self.heap.peek().copied()
    }

    fn next(&mut self) -> Option<(Rc<Node>, Vec<Option<Value>>)> {
        self.nodes.remove(&self.heap.pop()?)
    }
}
