//! The parameters of an optimizer, gathered: one storage for their values and another for their gradients, so that one
//! launch updates all of them.
//!
//! Layout: parameters are ordered by group, and each range is padded with zeros to 64 elements. Further blocks follow
//! where one buffer is not large enough. A parameter whose value or gradient was replaced (by another optimizer's
//! arena, or by loading) is copied back before a step.

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::tape::Tensor;

/// Each range is padded to this many elements: 256 bytes, the binding alignment of all devices.
const ALIGN: usize = 64;

pub struct Arena {
    cx: Rc<Context>,
    /// The owner's name, for errors.
    name: &'static str,
    locations: Vec<Location>,
    blocks: Vec<ArenaBlock>,
}

/// The location of a parameter.
pub struct Location {
    pub tensor: Tensor,
    pub group: usize,
    pub block: usize,
    /// Elements from the block's start.
    pub start: usize,
    pub size: usize,
}

struct ArenaBlock {
    value: Value,
    grad: Value,
}

/// Adjacent parameters of one group and key.
pub struct AdjacentParameters<K> {
    pub block: usize,
    pub start: usize,
    /// Elements, including the padding between parameters.
    pub count: usize,
    pub group: usize,
    pub key: K,
}

impl Arena {
    /// Moves the tensors into the arena, ordered by group. Existing gradients are kept.
    ///
    /// # Errors
    /// `ERR_DTYPE` unless all are f32, `ERR_DEVICE_MISMATCH` unless all are on one device, `ERR_NO_GRADIENT` for the
    /// output of an operation, `ERR_OPTION` for a tensor that is given twice.
    pub fn new(cx: &Rc<Context>, name: &'static str, parameters: &[(usize, Tensor)]) -> Result<Arena> {
        let mut parameters = parameters.to_vec();
        parameters.sort_by_key(|(group, _)| *group);
        for (i, (_, tensor)) in parameters.iter().enumerate() {
            check(cx, name, i, tensor)?;
        }
        let mut seen: Vec<u64> = parameters.iter().map(|(_, t)| t.id()).collect();
        seen.sort_unstable();
        if seen.windows(2).any(|w| w[0] == w[1]) {
            fail!(Option, "{name}: a parameter is given twice");
        }
        let mut sizes = vec![0];
        let mut locations = Vec::with_capacity(parameters.len());
        for (group, tensor) in parameters {
            let size = tensor.spec().shape.size();
            let padded = size.next_multiple_of(ALIGN);
            let last = sizes.len() - 1;
            if sizes[last] > 0 && (sizes[last] + padded) as u64 * 4 > cx.profile.buffer_limit {
                sizes.push(0);
            }
            let block = sizes.len() - 1;
            locations.push(Location { tensor, group, block, start: sizes[block], size });
            sizes[block] += padded;
        }
        let blocks = sizes
            .into_iter()
            .map(|size| Ok(ArenaBlock { value: allocate_zeros(cx, size)?, grad: allocate_zeros(cx, size)? }))
            .collect::<Result<_>>()?;
        let arena = Arena { cx: cx.clone(), name, locations, blocks };
        arena.gather()?;
        Ok(arena)
    }

    pub fn context(&self) -> &Rc<Context> {
        &self.cx
    }

    pub fn locations(&self) -> &[Location] {
        &self.locations
    }

    /// Elements of each block, including padding.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.blocks.iter().map(|b| b.value.size())
    }

    /// Copies values and gradients that were replaced back into the arena.
    pub fn gather(&self) -> Result<()> {
        for (i, location) in self.locations.iter().enumerate() {
            let block = &self.blocks[location.block];
            let tensor = &location.tensor;
            let value = tensor.value();
            let arena_value = block.value.sub_range(location.start, value.shape.clone());
            let slot = block.grad.sub_range(location.start, value.shape.clone());
            let is_in_arena =
                is_same(&value, &arena_value) && tensor.grad_slot().is_some_and(|s| is_same(&s, &slot));
            if !is_in_arena {
                check(&self.cx, self.name, i, tensor)?;
                if value.size() != location.size {
                    fail!(
                        ShapeMismatch,
                        "{}: parameter {i} has shape {} now, and had {} elements",
                        self.name,
                        value.shape,
                        location.size
                    );
                }
                if !is_same(&value, &arena_value) {
                    self.cx.copy(&value, &arena_value);
                    arena_value.storage.record_write();
                }
                tensor.move_to(arena_value, Some(slot.clone()));
            }
            match tensor.grad() {
                Some(grad) if !is_same(&grad, &slot) => {
                    tensor.check_grad(&grad)?;
                    self.cx.copy(&grad, &slot);
                    slot.storage.record_write();
                    tensor.set_grad(Some(slot));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether each parameter has a gradient.
    pub fn find_present(&self) -> Vec<bool> {
        self.locations.iter().map(|p| p.tensor.grad().is_some()).collect()
    }

    pub fn value_block(&self, block: usize) -> Value {
        self.blocks[block].value.clone()
    }

    pub fn gradient_block(&self, block: usize) -> Value {
        self.blocks[block].grad.clone()
    }

    /// The gradient's range of a parameter, in its shape.
    pub fn gradient(&self, location: &Location) -> Value {
        self.blocks[location.block].grad.sub_range(location.start, location.tensor.spec().shape)
    }

    /// Adjacent parameters with the same group and key; parameters without a key are skipped.
    pub fn runs<K: PartialEq>(&self, key: impl Fn(usize) -> Option<K>) -> Vec<AdjacentParameters<K>> {
        let mut runs: Vec<AdjacentParameters<K>> = Vec::new();
        let mut continues = false;
        for (i, location) in self.locations.iter().enumerate() {
            let Some(key) = key(i) else {
                continues = false;
                continue;
            };
            match runs.last_mut() {
                Some(run)
                    if continues
                        && run.block == location.block
                        && run.group == location.group
                        && run.key == key =>
                {
                    run.count = location.start + location.size - run.start;
                }
                _ => runs.push(AdjacentParameters {
                    block: location.block,
                    start: location.start,
                    count: location.size,
                    group: location.group,
                    key,
                }),
            }
            continues = true;
        }
        runs
    }

    /// Values and gradients of a run.
    pub fn ranges<K>(&self, run: &AdjacentParameters<K>) -> (Value, Value) {
        let block = &self.blocks[run.block];
        let range = |v: &Value| v.sub_range(run.start, [run.count]);
        (range(&block.value), range(&block.grad))
    }

    /// The existing gradients.
    pub fn merge_gradients(&self, present: &[bool]) -> Vec<Value> {
        self.runs(|i| present[i].then_some(())).iter().map(|run| self.ranges(run).1).collect()
    }

    /// Records that the blocks with present parameters were written; returns these blocks.
    pub fn record_writes(&self, present: &[bool]) -> Vec<usize> {
        let has_present =
            |block| self.locations.iter().zip(present).any(|(p, present)| p.block == block && *present);
        let blocks: Vec<usize> = (0..self.blocks.len()).filter(|block| has_present(*block)).collect();
        blocks.iter().for_each(|block| self.blocks[*block].value.storage.record_write());
        blocks
    }
}

impl Drop for Arena {
    /// The parameters keep their storage; the gradients' arena is freed with the optimizer.
    fn drop(&mut self) {
        for location in &self.locations {
            let grad = &self.blocks[location.block].grad;
            let is_in_arena = |v: &Value| Rc::ptr_eq(&v.storage, &grad.storage);
            if location.tensor.grad_slot().is_some_and(|slot| is_in_arena(&slot)) {
                location.tensor.clear_grad_slot();
            }
        }
    }
}

/// Whether `b` follows `a` in an arena, with only padding between them.
pub(super) fn are_adjacent(a: &Value, b: &Value) -> bool {
    Rc::ptr_eq(&a.storage, &b.storage) && (a.offset + a.size()).next_multiple_of(ALIGN) == b.offset
}

fn is_same(a: &Value, b: &Value) -> bool {
    Rc::ptr_eq(&a.storage, &b.storage) && a.offset == b.offset && a.shape == b.shape
}

/// A value of zeros.
pub(super) fn allocate_zeros(cx: &Rc<Context>, size: usize) -> Result<Value> {
    let value = cx.empty([size], DType::F32)?;
    cx.zero(&value);
    Ok(value)
}

fn check(cx: &Rc<Context>, name: &str, i: usize, tensor: &Tensor) -> Result<()> {
    let value = tensor.value();
    if !tensor.is_leaf() {
        fail!(NoGradient, "{name}: parameter {i}, of shape {}, was made by an operation", value.shape);
    }
    if value.dtype != DType::F32 {
        fail!(Dtype, "{name}: parameters are f32, and parameter {i} is {}", value.spec());
    }
    if !Rc::ptr_eq(value.context(), cx) {
        fail!(
            DeviceMismatch,
            "{name}: parameter {i} is on {}, and others are on {}",
            value.context().profile.label,
            cx.profile.label
        );
    }
    Ok(())
}
