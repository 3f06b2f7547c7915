//! Reverse-mode differentiation over operations, with regions that replay.
//!
//! A node keeps edges to the nodes of its inputs and the values that its backward reads, and
//! nothing else; dropping the last output drops what only it needed. Inside a region nothing is
//! saved but what enters it: when backward comes to the region it is run forward again, except
//! for what nothing in backward reads.

use std::cell::{Cell, RefCell};
use std::collections::{BinaryHeap, HashMap};
use std::rc::{Rc, Weak};

use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::accumulate;
use crate::op::{Gradient, Op, Reads, Saved, run};
use crate::tensor::{Spec, Value};

/// A value that may ask for a gradient.
#[derive(Clone)]
pub struct Tensor(Rc<Inner>);

struct Inner {
    id: u64,
    value: RefCell<Value>,
    requires_grad: Cell<bool>,
    edge: RefCell<Option<(Rc<Node>, usize)>>,
    grad: RefCell<Option<Value>>,
    /// Where the gradient is to live: a range of an optimizer's arena.
    grad_slot: RefCell<Option<Value>>,
}

/// One recorded operation.
struct Node {
    sequence: u64,
    op: Rc<dyn Op>,
    parents: Vec<Parent>,
    input_specs: Vec<Spec>,
    output_specs: Vec<Spec>,
    saved: RefCell<Kept>,
    region: Option<(Rc<Region>, usize)>,
}

enum Parent {
    None,
    Leaf(Tensor),
    Node(Rc<Node>, usize),
}

/// A saved value, with the version that its storage had.
type Versioned = Option<(Value, u64)>;

enum Kept {
    Values {
        inputs: Vec<Versioned>,
        outputs: Vec<Versioned>,
    },
    /// The region replays first.
    Deferred,
    Freed,
}

/// Operations that are run again when backward comes to them.
struct Region {
    ops: RefCell<Vec<RegionOp>>,
}

struct RegionOp {
    op: Rc<dyn Op>,
    inputs: Vec<RegionInput>,
    node: Option<Weak<Node>>,
}

enum RegionInput {
    External(Value, u64),
    Internal(usize, usize),
}

impl RegionOp {
    /// Inputs that the region made: which operation made it, and which input of this one it is.
    fn internal_inputs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.inputs.iter().enumerate().filter_map(|(k, input)| match input {
            RegionInput::Internal(from, _) => Some((*from, k)),
            RegionInput::External(..) => None,
        })
    }
}

/// What an environment records into.
#[derive(Default)]
pub struct Tape {
    sequence: Cell<u64>,
    regions: RefCell<HashMap<u32, OpenRegion>>,
    mode: Cell<Mode>,
}

/// How operations are recorded just now; the façade sets it from its asynchronous context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    pub no_grad: bool,
    /// The open region, 0 for none.
    pub region: u32,
}

struct OpenRegion {
    region: Rc<Region>,
    /// By tensor id: which operation of the region made it.
    made: HashMap<u64, (usize, usize)>,
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

    pub fn spec(&self) -> Spec {
        self.0.value.borrow().spec()
    }

    pub fn requires_grad(&self) -> bool {
        self.0.requires_grad.get()
    }

    /// Whether an operation on the tape made it.
    pub fn is_leaf(&self) -> bool {
        self.0.edge.borrow().is_none()
    }

    /// # Errors
    /// `ERR_NO_GRADIENT` for a tensor that an operation made, `ERR_DTYPE` unless it is f32.
    pub fn set_requires_grad(&self, on: bool) -> Result<()> {
        if !self.is_leaf() {
            fail!(
                NoGradient,
                "requiresGrad: only a tensor that no operation made may be told to ask for one"
            );
        }
        if on && self.spec().dtype != crate::dtype::DType::F32 {
            fail!(Dtype, "requiresGrad: gradients are f32, this tensor is {}", self.spec().dtype);
        }
        self.0.requires_grad.set(on);
        Ok(())
    }

    pub fn grad(&self) -> Option<Value> {
        self.0.grad.borrow().clone()
    }

    pub fn set_grad(&self, grad: Option<Value>) {
        *self.0.grad.borrow_mut() = grad;
    }

    /// Lets the tensor live in `value` from now on, and its gradient in `grad_slot`: how an
    /// optimizer gathers parameters into its arena. `value` holds the same elements.
    pub fn move_to(&self, value: Value, grad_slot: Option<Value>) {
        *self.0.value.borrow_mut() = value;
        *self.0.grad_slot.borrow_mut() = grad_slot;
    }

    /// The same value, outside the tape.
    pub fn detach(&self) -> Tensor {
        Tensor::new(self.value(), false)
    }

    fn asks(&self) -> bool {
        self.requires_grad()
    }

    fn parent(&self) -> Parent {
        if !self.asks() {
            return Parent::None;
        }
        match &*self.0.edge.borrow() {
            Some((node, i)) => Parent::Node(node.clone(), *i),
            None => Parent::Leaf(self.clone()),
        }
    }

    fn accumulate_grad(&self, d: Value) -> Result<()> {
        let cx = d.context().clone();
        let slot = self.0.grad_slot.borrow().clone();
        let mut grad = self.0.grad.borrow_mut();
        *grad = Some(match (grad.take(), slot) {
            (Some(sum), Some(_)) => {
                accumulate(&cx, &sum, &d)?;
                sum
            }
            (Some(sum), None) => add_up(&cx, sum, d)?,
            (None, Some(slot)) => {
                cx.copy(&d, &slot);
                slot
            }
            (None, None) => d,
        });
        Ok(())
    }
}

/// Adds `d` to `sum`, in place where nothing else reads it.
fn add_up(cx: &Rc<crate::tensor::Context>, sum: Value, d: Value) -> Result<Value> {
    if sum.is_unshared() {
        accumulate(cx, &sum, &d)?;
        return Ok(sum);
    }
    let copy = cx.empty(sum.shape.clone(), sum.dtype)?;
    cx.copy(&sum, &copy);
    accumulate(cx, &copy, &d)?;
    Ok(copy)
}

fn versioned(value: &Value) -> Versioned {
    Some((value.clone(), value.storage.version()))
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
        let region = Rc::new(Region { ops: RefCell::default() });
        self.regions.borrow_mut().insert(id, OpenRegion { region, made: HashMap::new() });
    }

    /// Closes it; from now on its tensors are like any others.
    pub fn close_region(&self, id: u32) {
        self.regions.borrow_mut().remove(&id);
    }

    /// Runs `op` and records it where an input asks for a gradient.
    ///
    /// # Errors
    /// The operation's own; `ERR_NO_GRADIENT` when it has none and an input asks for one.
    pub fn apply(&self, op: impl Op, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let values: Vec<Value> = inputs.iter().map(|t| t.value()).collect();
        let refs: Vec<&Value> = values.iter().collect();
        let Some(first) = refs.first() else { fail!(Internal, "{}: no inputs", op.name()) };
        let cx = first.context().clone();
        let mode = self.mode.get();
        let gradient = op.gradient();
        let asked = !mode.no_grad && inputs.iter().any(|t| t.asks());
        if asked && gradient == Gradient::Missing {
            fail!(NoGradient, "{}: has no gradient, and an input asks for one", op.name());
        }
        let outputs = run(&cx, &op, &refs)?;
        let op: Rc<dyn Op> = Rc::new(op);
        let tensors: Vec<Tensor> = outputs.iter().map(|v| Tensor::new(v.clone(), false)).collect();

        let mut regions = self.regions.borrow_mut();
        let mut open = regions.get_mut(&mode.region);
        let region_index = open.as_mut().map(|open| {
            let index = open.region.ops.borrow().len();
            let inputs = inputs
                .iter()
                .zip(&values)
                .map(|(t, v)| match open.made.get(&t.0.id) {
                    Some(&(op, out)) => RegionInput::Internal(op, out),
                    None => RegionInput::External(v.clone(), v.storage.version()),
                })
                .collect();
            open.region.ops.borrow_mut().push(RegionOp { op: op.clone(), inputs, node: None });
            for (out, t) in tensors.iter().enumerate() {
                open.made.insert(t.0.id, (index, out));
            }
            index
        });
        let Gradient::Reads(reads) = gradient else { return Ok(tensors) };
        if !asked {
            return Ok(tensors);
        }
        let kept = if region_index.is_some() {
            Kept::Deferred
        } else {
            let keep = |mask: u32, values: &[Value]| {
                values
                    .iter()
                    .enumerate()
                    .map(|(i, v)| if mask >> i & 1 == 1 { versioned(v) } else { None })
                    .collect()
            };
            Kept::Values { inputs: keep(reads.inputs, &values), outputs: keep(reads.outputs, &outputs) }
        };
        let node = Rc::new(Node {
            sequence: self.sequence.replace(self.sequence.get() + 1),
            op,
            parents: inputs.iter().map(|t| t.parent()).collect(),
            input_specs: values.iter().map(Value::spec).collect(),
            output_specs: outputs.iter().map(Value::spec).collect(),
            saved: RefCell::new(kept),
            region: open.as_ref().zip(region_index).map(|(o, i)| (o.region.clone(), i)),
        });
        if let (Some(open), Some(index)) = (open, region_index) {
            open.region.ops.borrow_mut()[index].node = Some(Rc::downgrade(&node));
        }
        for (i, t) in tensors.iter().enumerate() {
            t.0.requires_grad.set(true);
            *t.0.edge.borrow_mut() = Some((node.clone(), i));
        }
        Ok(tensors)
    }

    /// `apply` for an operation with one output.
    pub fn apply1(&self, op: impl Op, inputs: &[&Tensor]) -> Result<Tensor> {
        Ok(self.apply(op, inputs)?.swap_remove(0))
    }

    /// Adds the gradient of `root` (times `d_out`; 1 for a single element) to every leaf it
    /// depends on that asks for one. What backward read is freed as it goes.
    ///
    /// # Errors
    /// `ERR_NO_GRADIENT`: nothing asks for one, the tape was freed, or `root` has several elements
    /// and no `d_out`. `ERR_MODIFIED`: a value that backward reads was written in place.
    pub fn backward(&self, root: &Tensor, d_out: Option<Value>) -> Result<()> {
        if !root.asks() {
            fail!(NoGradient, "backward: this tensor depends on nothing that asks for a gradient");
        }
        let value = root.value();
        let d_out = match d_out {
            Some(d) if d.shape == value.shape && d.dtype == value.dtype => d,
            Some(d) => {
                fail!(ShapeMismatch, "backward: the gradient is {}, the tensor {}", d.spec(), value.spec())
            }
            None if value.size() == 1 => {
                value.context().upload(value.shape.clone(), value.dtype, 1f32.to_le_bytes().to_vec())?
            }
            None => fail!(
                NoGradient,
                "backward: a tensor of shape {} needs a gradient to start from",
                value.shape
            ),
        };
        let edge = root.0.edge.borrow().clone();
        let Some((node, index)) = edge else { return root.accumulate_grad(d_out) };

        let mut pending = Pending::default();
        pending.add(value.context(), &node, index, d_out)?;
        drop(node);
        while let Some((node, d_outs)) = pending.next() {
            let saved = node.take_saved()?;
            let needs: Vec<bool> = node.parents.iter().map(|p| !matches!(p, Parent::None)).collect();
            let d_inputs = node.op.backward(value.context(), &saved, &needs, &d_outs)?;
            drop((saved, d_outs));
            for ((parent, d), spec) in node.parents.iter().zip(d_inputs).zip(&node.input_specs) {
                let Some(d) = d else { continue };
                debug_assert_eq!(d.shape, spec.shape, "{}", node.op.name());
                match parent {
                    Parent::None => {}
                    Parent::Leaf(leaf) => leaf.accumulate_grad(d)?,
                    Parent::Node(parent, i) => pending.add(value.context(), parent, *i, d)?,
                }
            }
        }
        Ok(())
    }
}

/// Nodes that have gradients and have not run, latest first.
#[derive(Default)]
struct Pending {
    heap: BinaryHeap<u64>,
    nodes: HashMap<u64, (Rc<Node>, Vec<Option<Value>>)>,
}

impl Pending {
    fn add(
        &mut self,
        cx: &Rc<crate::tensor::Context>,
        node: &Rc<Node>,
        output: usize,
        d: Value,
    ) -> Result<()> {
        let (_, d_outs) = self.nodes.entry(node.sequence).or_insert_with(|| {
            self.heap.push(node.sequence);
            (node.clone(), vec![None; node.output_specs.len()])
        });
        d_outs[output] = Some(match d_outs[output].take() {
            Some(sum) => add_up(cx, sum, d)?,
            None => d,
        });
        Ok(())
    }

    fn next(&mut self) -> Option<(Rc<Node>, Vec<Option<Value>>)> {
        self.nodes.remove(&self.heap.pop()?)
    }
}

impl Node {
    /// Takes what was kept, replaying the region first where that was put off.
    fn take_saved(&self) -> Result<Saved> {
        if matches!(&*self.saved.borrow(), Kept::Deferred) {
            let (region, _) = self.region.as_ref().expect("only a region's node is deferred");
            region.replay()?;
        }
        let Kept::Values { inputs, outputs } = self.saved.replace(Kept::Freed) else {
            fail!(NoGradient, "backward: {} was already differentiated and its tape freed", self.op.name());
        };
        let check = |values: Vec<Versioned>| {
            values
                .into_iter()
                .map(|v| match v {
                    Some((value, version)) if value.storage.version() != version => {
                        fail!(
                            Modified,
                            "backward: a tensor of shape {} that {} needs was changed in place",
                            value.shape,
                            self.op.name()
                        )
                    }
                    v => Ok(v.map(|(value, _)| value)),
                })
                .collect::<Result<Vec<_>>>()
        };
        Ok(Saved {
            inputs: check(inputs)?,
            outputs: check(outputs)?,
            input_specs: self.input_specs.clone(),
            output_specs: self.output_specs.clone(),
        })
    }
}

impl Region {
    /// Runs the region forward again and fills what its nodes' backward reads.
    fn replay(&self) -> Result<()> {
        let ops = self.ops.borrow();
        let nodes: Vec<Option<Rc<Node>>> =
            ops.iter().map(|o| o.node.as_ref().and_then(Weak::upgrade).filter(|n| n.is_deferred())).collect();

        // Which outputs are read, by a backward or by an operation that has to run, and until when.
        let mut read = vec![false; ops.len()];
        let mut last_use = vec![0; ops.len()];
        for (i, entry) in ops.iter().enumerate() {
            let Some(reads) = nodes[i].as_ref().map(|n| n.reads()) else { continue };
            read[i] |= reads.outputs != 0;
            for (from, k) in entry.internal_inputs() {
                if reads.inputs >> k & 1 == 1 {
                    read[from] = true;
                    last_use[from] = last_use[from].max(i);
                }
            }
        }
        // An operation that turned out to be read makes its inputs read in turn; one pass in
        // descending order reaches them all, since inputs come before.
        for i in (0..ops.len()).rev() {
            if read[i] {
                for (from, _) in ops[i].internal_inputs() {
                    read[from] = true;
                    last_use[from] = last_use[from].max(i);
                }
            }
        }
        let mut made: Vec<Option<Vec<Value>>> = vec![None; ops.len()];
        for (i, entry) in ops.iter().enumerate() {
            // A node whose outputs nobody reads may still read its inputs.
            let mut inputs = Vec::with_capacity(entry.inputs.len());
            for input in &entry.inputs {
                inputs.push(match input {
                    RegionInput::External(value, version) if value.storage.version() != *version => fail!(
                        Modified,
                        "backward: a tensor of shape {} that a checkpoint starts from was changed in place",
                        value.shape
                    ),
                    RegionInput::External(value, _) => Some(value.clone()),
                    RegionInput::Internal(from, out) => made[*from].as_ref().map(|m| m[*out].clone()),
                });
            }
            if read[i] {
                let refs: Vec<&Value> = inputs.iter().map(|v| v.as_ref().expect("read")).collect();
                let cx = refs[0].context().clone();
                made[i] = Some(run(&cx, &*entry.op, &refs)?);
            }
            if let Some(node) = &nodes[i] {
                let reads = node.reads();
                let inputs =
                    inputs
                        .iter()
                        .enumerate()
                        .map(|(k, v)| {
                            if reads.inputs >> k & 1 == 1 {
                                versioned(v.as_ref().expect("read"))
                            } else {
                                None
                            }
                        })
                        .collect();
                let outputs = (0..node.output_specs.len())
                    .map(|k| match &made[i] {
                        Some(values) if reads.outputs >> k & 1 == 1 => versioned(&values[k]),
                        _ => None,
                    })
                    .collect();
                *node.saved.borrow_mut() = Kept::Values { inputs, outputs };
            }
            drop(inputs);
            for (from, _) in entry.internal_inputs().chain([(i, 0)]) {
                if last_use[from] <= i {
                    made[from] = None;
                }
            }
        }
        Ok(())
    }
}

impl Node {
    fn is_deferred(&self) -> bool {
        matches!(&*self.saved.borrow(), Kept::Deferred)
    }

    fn reads(&self) -> Reads {
        match self.op.gradient() {
            Gradient::Reads(reads) => reads,
            _ => unreachable!("a node has a gradient"),
        }
    }
}

impl Drop for Node {
    /// Long chains are taken apart in a loop: a recursion would overflow the stack.
    fn drop(&mut self) {
        let mut todo: Vec<Parent> = std::mem::take(&mut self.parents);
        while let Some(parent) = todo.pop() {
            match parent {
                Parent::Node(node, _) => {
                    if let Some(mut node) = Rc::into_inner(node) {
                        todo.append(&mut node.parents);
                    }
                }
                Parent::Leaf(_) | Parent::None => {}
            }
        }
    }
}
