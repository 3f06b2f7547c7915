//! Optimizers: parameters in an arena, and update rules that run over its spans.
//!
//! A step consists of the global norm of the gradients, a verdict on it, and one launch of the rule for each span of
//! parameters that have a gradient and share a group and a step count. The host reads nothing back: the verdict (the
//! clipping factor and whether the step is skipped) is on the device. A norm that is not finite leaves parameters and
//! state unchanged. In a training loop that has already submitted later steps, all of them are skipped, too, until
//! `clear_latch`; otherwise only that step is skipped, and the rules count one update fewer until the host knows of it
//! and adjusts its counts (`uncount_steps`).

pub mod adafactor;
pub mod adamw;
pub mod arena;
pub mod clip;
mod exchange;
pub mod lion;
mod replica;
pub mod sgd;
mod span;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::rc::Rc;

pub use adafactor::Adafactor;
pub use adamw::{Adam, AdamW};
pub use clip::NotFinite;
pub use exchange::{Answer, Exchange};
pub use lion::Lion;
pub use replica::Replica;
pub use sgd::Sgd;
pub use span::Span;
pub use state::State;

use crate::context::{Context, Value};
use crate::error::Result;
use crate::fail;
use crate::kernel::Kernel;
use crate::shape::Shape;
use crate::tape::Tensor;
use crate::trace::Pass;
use arena::Arena;

/// Every kernel of an optimizer.
pub fn list_kernels() -> Vec<&'static Kernel> {
    [adafactor::KERNELS, adamw::KERNELS, clip::KERNELS, lion::KERNELS, sgd::KERNELS].concat()
}

/// An update rule with the options of one parameter group.
pub trait Rule: Clone + std::fmt::Debug {
    /// The optimizer's name in PyTorch.
    const NAME: &'static str;
    /// The name in traces.
    const TRACED: &'static str;
    /// The names of its states, as in PyTorch.
    const STATES: &'static [&'static str];
    /// Whether parameters are updated one by one, because an element's update depends on other elements of its
    /// parameter.
    const ONE_BY_ONE: bool = false;

    /// The states of a parameter of `shape`, with their shapes: by default all of `STATES`, with one value per element.
    /// A rule may override this if it updates parameters one by one.
    fn states(shape: &Shape) -> Vec<(&'static str, Shape)> {
        Self::STATES.iter().map(|name| (*name, shape.clone())).collect()
    }

    /// Checks the options.
    ///
    /// # Errors
    /// `ERR_OPTION` that names the optimizer, the option and its value.
    fn check(&self) -> Result<()>;

    /// Whether the state is used with these options.
    fn keeps_state(&self) -> bool;

    /// Appends the update of a span. `step` counts the updates that kept state, from 1; the verdict has the number of
    /// them that were skipped.
    fn update(&self, cx: &Rc<Context>, step: u64, span: &Span) -> Result<()>;
}

/// An optimizer: groups of parameters, each with its options, and their state.
pub struct Optimizer<R: Rule> {
    arena: Arena,
    groups: Vec<R>,
    /// For each block of the arena, if the rule keeps state; for each parameter, if it updates them one by one.
    states: Vec<Vec<Value>>,
    /// Updates of each parameter, in the arena's order.
    steps: Vec<u64>,
    verdict: clip::Verdict,
    recent: RecentSteps,
}

/// The sets of parameters that recent steps updated, each with the number of consecutive steps, so that skipped steps
/// can be uncounted.
#[derive(Default)]
struct RecentSteps(VecDeque<(Vec<usize>, u64)>);

/// Most sets that are remembered; a training run has one.
const MAX_RECENT_SETS: usize = 1024;

impl<R: Rule> Optimizer<R> {
    /// Gathers the parameters, whose storage is in the optimizer's arena from now on.
    ///
    /// # Errors
    /// The errors of `Arena::new` and `Rule::check`.
    pub fn new(groups: Vec<(R, Vec<Tensor>)>) -> Result<Self> {
        for (rule, _) in &groups {
            rule.check()?;
        }
        let parameters: Vec<(usize, Tensor)> = groups
            .iter()
            .enumerate()
            .flat_map(|(g, (_, tensors))| tensors.iter().map(move |t| (g, t.clone())))
            .collect();
        let Some((_, first)) = parameters.first() else {
            fail!(Option, "{}: the list of parameters is empty", R::NAME)
        };
        let cx = first.value().context().clone();
        let arena = Arena::new(&cx, R::NAME, &parameters)?;
        Ok(Optimizer {
            steps: vec![0; arena.locations().len()],
            states: Vec::new(),
            groups: groups.into_iter().map(|(rule, _)| rule).collect(),
            verdict: clip::Verdict::new(&cx)?,
            recent: RecentSteps::default(),
            arena,
        })
    }

    /// The options of group `group`; they may change between steps.
    pub fn group_mut(&mut self, group: usize) -> Option<&mut R> {
        self.groups.get_mut(group)
    }

    pub fn groups(&self) -> &[R] {
        &self.groups
    }

    /// The parameters in their given order, with their groups.
    pub fn parameters(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        self.arena.locations().iter().map(|p| (p.group, &p.tensor))
    }

    /// Updates every parameter that has a gradient. Returns the gradients' global norm, f32[].
    ///
    /// With `clip`, the update uses gradient · min(1, clip / (norm + 1e-6)); the gradients themselves stay unchanged.
    /// The launches run all or not at all. A step whose norm is not finite changes nothing; `not_finite` decides about
    /// the steps after it.
    ///
    /// # Errors
    /// `ERR_OPTION` for options out of range.
    pub fn step(&mut self, clip: Option<f32>, not_finite: NotFinite) -> Result<Value> {
        self.groups.iter().try_for_each(R::check)?;
        clip::check_max(R::NAME, clip)?;
        let cx = self.arena.context().clone();
        cx.trace_operation(R::TRACED, Pass::Update, || self.append_step(&cx, clip, not_finite))
    }

    fn append_step(&mut self, cx: &Rc<Context>, clip: Option<f32>, not_finite: NotFinite) -> Result<Value> {
        self.arena.gather()?;
        if self.states.is_empty() && self.groups.iter().any(R::keeps_state) {
            self.states = state::make_zeros::<R>(&self.arena)?;
        }
        let present = self.arena.find_present();
        cx.run_atomically(|| {
            let norm = clip::append_norm(cx, &self.arena.merge_gradients(&present))?;
            self.verdict.record(cx, &norm, clip, not_finite)?;
            let parameter = |i| if R::ONE_BY_ONE { i } else { 0 };
            for run in self.arena.runs(|i| present[i].then_some((self.steps[i] + 1, parameter(i)))) {
                let rule = &self.groups[run.group];
                let (step, i) = run.key;
                let states = match rule.keeps_state() {
                    true if R::ONE_BY_ONE => self.states[i].clone(),
                    true => {
                        self.states[run.block].iter().map(|s| s.sub_range(run.start, [run.count])).collect()
                    }
                    false => Vec::new(),
                };
                let (mut value, mut grad) = self.arena.ranges(&run);
                if R::ONE_BY_ONE {
                    let shape = self.arena.locations()[i].tensor.spec().shape;
                    (value, grad) = (value.reshape(shape.clone()), grad.reshape(shape));
                }
                let span = Span { value, grad, states, verdict: self.verdict.value().clone() };
                rule.update(cx, step, &span)?;
            }
            let blocks = self.arena.record_writes(&present);
            let written = match R::ONE_BY_ONE {
                true => (0..present.len()).filter(|i| present[*i]).collect(),
                false => blocks,
            };
            for i in written {
                self.states.get(i).into_iter().flatten().for_each(|s| s.storage.record_write());
            }
            let counted = (0..present.len())
                .filter(|i| present[*i] && self.groups[self.arena.locations()[*i].group].keeps_state())
                .collect::<Vec<_>>();
            counted.iter().for_each(|i| self.steps[*i] += 1);
            self.recent.add(counted);
            Ok(norm)
        })
    }

    /// The global norm of the gradients, f32[]; the gradients stay unchanged.
    pub fn norm(&self) -> Result<Value> {
        self.arena.gather()?;
        clip::append_norm(self.arena.context(), &self.arena.merge_gradients(&self.arena.find_present()))
    }

    /// Removes the gradients.
    pub fn zero_grad(&self) {
        self.arena.locations().iter().for_each(|p| p.tensor.set_grad(None));
    }

    /// The number of steps that the latch skipped, f32[]; 0 if all gradients were finite.
    pub fn undone(&self) -> Value {
        self.verdict.undone()
    }

    /// The number of single skipped steps that are still counted, f32[].
    pub fn uncounted_steps(&self) -> Value {
        self.verdict.skipped_count()
    }

    /// Uncounts single skipped steps: the value read from `uncounted_steps()`.
    pub fn uncount_steps(&mut self, steps: u64) {
        self.verdict.count_skipped(self.arena.context(), steps);
        self.undo_steps(steps);
    }

    /// Allows updates again. `undone` is the value read from `undone()`; those steps are uncounted.
    pub fn clear_latch(&mut self, undone: u64) {
        self.verdict.clear(self.arena.context());
        self.undo_steps(undone);
    }

    /// Uncounts the last `steps` steps, which the device did not run, for example after a cancelled step.
    pub fn undo_steps(&mut self, steps: u64) {
        for (parameters, times) in self.recent.remove_last(steps) {
            parameters.iter().for_each(|i| self.steps[*i] -= times);
        }
    }
}

impl RecentSteps {
    fn add(&mut self, counted: Vec<usize>) {
        match self.0.back_mut() {
            Some((last, times)) if *last == counted => *times += 1,
            _ => self.0.push_back((counted, 1)),
        }
        if self.0.len() > MAX_RECENT_SETS {
            self.0.pop_front();
        }
    }

    /// Removes the last `steps` steps.
    fn remove_last(&mut self, mut steps: u64) -> Vec<(Vec<usize>, u64)> {
        let mut removed = Vec::new();
        while steps > 0
            && let Some((set, times)) = self.0.back_mut()
        {
            let n = steps.min(*times);
            removed.push((set.clone(), n));
            steps -= n;
            *times -= n;
            if *times == 0 {
                self.0.pop_back();
            }
        }
        removed
    }
}
