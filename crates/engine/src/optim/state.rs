//! Export and import of an optimizer's state, for checkpoints.

use super::arena::{Arena, Location, allocate_zeros};
use super::{Optimizer, Rule};
use crate::context::{Spec, Value};
use crate::error::Result;
use crate::fail;

/// The state of one parameter.
#[derive(Clone, Debug)]
pub struct State {
    /// Updates so far.
    pub step: u64,
    /// One for each of `Rule::states` of the parameter's shape; empty before the first update. They are ranges of the
    /// optimizer's arenas, which later steps overwrite.
    pub values: Vec<Value>,
}

/// The state arenas: one per block and state; parameters that are updated one by one have separate ones.
pub(super) fn make_zeros<R: Rule>(arena: &Arena) -> Result<Vec<Vec<Value>>> {
    let cx = arena.context();
    if R::ONE_BY_ONE {
        let of = |location: &Location| {
            let states = R::states(&location.tensor.spec().shape);
            states
                .into_iter()
                .map(|(_, shape)| Ok(allocate_zeros(cx, shape.size())?.reshape(shape)))
                .collect()
        };
        return arena.locations().iter().map(of).collect();
    }
    arena.sizes().map(|size| R::STATES.iter().map(|_| allocate_zeros(cx, size)).collect()).collect()
}

impl<R: Rule> Optimizer<R> {
    /// The state of every parameter, in the order of `parameters()`.
    pub fn state(&self) -> Vec<State> {
        let locations = self.locations();
        locations
            .iter()
            .zip(&self.steps)
            .enumerate()
            .map(|(i, (p, step))| State { step: *step, values: self.ranges(i, p) })
            .collect()
    }

    /// Loads a state exported by `state()` of this optimizer, or of one with the same parameters.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` if the number of parameters or a shape differs; then nothing changes.
    pub fn load_state(&mut self, state: &[State]) -> Result<()> {
        let count = self.locations().len();
        if state.len() != count {
            fail!(
                ShapeMismatch,
                "{}: the state is of {} parameters, the optimizer has {count}",
                R::NAME,
                state.len()
            );
        }
        for (i, (s, location)) in state.iter().zip(self.locations()).enumerate() {
            check::<R>(i, s, location)?;
        }
        if self.states.is_empty() && state.iter().any(|s| !s.values.is_empty()) {
            self.states = make_zeros::<R>(&self.arena)?;
        }
        for (i, s) in state.iter().enumerate() {
            let locations = self.locations();
            for (k, own) in self.ranges(i, &locations[i]).into_iter().enumerate() {
                match s.values.get(k) {
                    // The optimizer's own state needs no copy.
                    Some(v) if v.storage.buffer() == own.storage.buffer() && v.offset == own.offset => {}
                    Some(v) => own.context().receive(v, &own)?,
                    None => own.context().zero(&own),
                }
                own.storage.record_write();
            }
        }
        self.steps = state.iter().map(|s| s.step).collect();
        self.recent = Default::default();
        self.verdict.reset_counts(self.arena.context());
        Ok(())
    }

    fn locations(&self) -> &[Location] {
        self.arena.locations()
    }

    /// The states of parameter `i`, which lives at `location`.
    fn ranges(&self, i: usize, location: &Location) -> Vec<Value> {
        if R::ONE_BY_ONE {
            return self.states.get(i).cloned().unwrap_or_default();
        }
        let shape = location.tensor.spec().shape;
        let Some(states) = self.states.get(location.block) else { return Vec::new() };
        states.iter().map(|s| s.sub_range(location.start, shape.clone())).collect()
    }
}

fn check<R: Rule>(i: usize, state: &State, location: &Location) -> Result<()> {
    let spec = location.tensor.spec();
    if state.values.is_empty() && state.step == 0 {
        return Ok(());
    }
    let own = R::states(&spec.shape);
    if state.values.len() != own.len() {
        fail!(
            ShapeMismatch,
            "{}: the state of parameter {i} holds {} tensors, it takes {}",
            R::NAME,
            state.values.len(),
            own.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        );
    }
    for (value, (name, shape)) in state.values.iter().zip(own) {
        let expected = Spec { shape, ..spec.clone() };
        if value.spec() == expected {
            continue;
        }
        if expected == spec {
            fail!(
                ShapeMismatch,
                "{}: {name} of parameter {i} is {}, the parameter {spec}",
                R::NAME,
                value.spec()
            );
        }
        fail!(
            ShapeMismatch,
            "{}: {name} of parameter {i}, {spec}, is {}; it takes {expected}",
            R::NAME,
            value.spec()
        );
    }
    Ok(())
}
