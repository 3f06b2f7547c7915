//! Optimizers by number. Their parameters are handles; each step passes their options.

use lowrank_engine::context::Value;
use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::optim::{
    Adafactor, Adam, AdamW, Lion, NotFinite, Optimizer, Rule, Sgd, State as ParameterState, clip,
};
use lowrank_engine::tape::Tensor;
use napi::bindgen_prelude::Either;
use napi_derive::napi;

use crate::error::Result;
use crate::session::{AnyOptimizer, Session, State};

/// The options of a parameter group; each rule reads its own.
#[napi(object)]
pub struct GroupOptions {
    pub lr: f64,
    pub weight_decay: f64,
    pub betas: Option<Vec<f64>>,
    /// Two values for Adafactor.
    pub eps: Option<Either<f64, Vec<f64>>>,
    pub momentum: Option<f64>,
    pub dampening: Option<f64>,
    pub nesterov: Option<bool>,
    pub beta2_decay: Option<f64>,
    pub d: Option<f64>,
}

/// An optimizer's state for one parameter: new handles of its tensors, none before the first step.
#[napi(object)]
pub struct OptimizerState {
    pub step: f64,
    pub values: Vec<u32>,
}

impl GroupOptions {
    fn to_adamw(&self) -> AdamW {
        let unset = AdamW::default();
        let eps = match self.eps {
            None => unset.eps,
            Some(Either::A(eps)) => eps,
            Some(Either::B(_)) => f64::NAN,
        };
        AdamW { lr: self.lr, betas: self.betas_or(unset.betas), eps, weight_decay: self.weight_decay }
    }

    fn to_lion(&self) -> Lion {
        let betas = self.betas_or(Lion::default().betas);
        Lion { lr: self.lr, betas, weight_decay: self.weight_decay }
    }

    fn to_adafactor(&self) -> Adafactor {
        let unset = Adafactor::default();
        let eps = match &self.eps {
            None => unset.eps,
            Some(Either::B(eps)) if eps.len() == 2 => [eps[0], eps[1]],
            Some(_) => [f64::NAN; 2],
        };
        Adafactor {
            lr: self.lr,
            beta2_decay: self.beta2_decay.unwrap_or(unset.beta2_decay),
            eps,
            d: self.d.unwrap_or(unset.d),
            weight_decay: self.weight_decay,
        }
    }

    /// The betas. A list that has not two entries gives NaN, which the rule's check rejects.
    fn betas_or(&self, unset: [f64; 2]) -> [f64; 2] {
        match self.betas.as_deref() {
            None => unset,
            Some(&[first, second]) => [first, second],
            Some(_) => [f64::NAN; 2],
        }
    }

    fn to_sgd(&self) -> Sgd {
        Sgd {
            lr: self.lr,
            momentum: self.momentum.unwrap_or(0.0),
            dampening: self.dampening.unwrap_or(0.0),
            weight_decay: self.weight_decay,
            nesterov: self.nesterov.unwrap_or(false),
        }
    }
}

/// Runs `$body` with `$o` bound to the optimizer, whichever rule it has.
macro_rules! with_optimizer {
    ($any:expr, $o:ident => $body:expr) => {
        match $any {
            AnyOptimizer::Adafactor($o) => $body,
            AnyOptimizer::Adam($o) => $body,
            AnyOptimizer::AdamW($o) => $body,
            AnyOptimizer::Lion($o) => $body,
            AnyOptimizer::Sgd($o) => $body,
        }
    };
}

pub(crate) use with_optimizer;

impl AnyOptimizer {
    fn set_options(&mut self, options: &[GroupOptions]) {
        for (i, given) in options.iter().enumerate() {
            match self {
                AnyOptimizer::Adafactor(o) => set_rule(o, i, given.to_adafactor()),
                AnyOptimizer::Adam(o) => set_rule(o, i, Adam(given.to_adamw())),
                AnyOptimizer::AdamW(o) => set_rule(o, i, given.to_adamw()),
                AnyOptimizer::Lion(o) => set_rule(o, i, given.to_lion()),
                AnyOptimizer::Sgd(o) => set_rule(o, i, given.to_sgd()),
            }
        }
    }
}

fn set_rule<R: Rule>(optimizer: &mut Optimizer<R>, group: usize, rule: R) {
    if let Some(own) = optimizer.group_mut(group) {
        *own = rule;
    }
}

/// Creates an optimizer over groups of tensors, each with its options.
fn make_optimizer<R: Rule>(
    options: &[GroupOptions],
    tensors: Vec<Vec<Tensor>>,
    rule: impl Fn(&GroupOptions) -> R,
) -> engine::Result<Optimizer<R>> {
    Optimizer::new(options.iter().map(rule).zip(tensors).collect())
}

impl State {
    pub(crate) fn optimizer(&mut self, id: u32) -> engine::Result<&mut AnyOptimizer> {
        let found = self.optimizers.get_mut(&id);
        found.ok_or_else(|| fail_code(Code::Disposed, "an optimizer is used after it was disposed"))
    }

    pub(crate) fn parameters(&self, ids: &[u32]) -> engine::Result<Vec<Tensor>> {
        ids.iter().map(|id| self.tensor(*id)).collect()
    }

    fn insert_value(&mut self, value: Value) -> u32 {
        self.insert(Tensor::new(value, false))
    }
}

#[napi]
impl Session {
    /// Creates an optimizer (`adafactor`, `adam`, `adamw`, `lion` or `sgd`) over groups of parameters; `options`
    /// has one entry for each group.
    #[napi(catch_unwind)]
    pub fn optimizer(&self, rule: String, groups: Vec<Vec<u32>>, options: Vec<GroupOptions>) -> Result<u32> {
        self.with_state(|s| {
            let tensors: Vec<Vec<Tensor>> =
                groups.iter().map(|ids| s.parameters(ids)).collect::<engine::Result<_>>()?;
            let made = match rule.as_str() {
                "adafactor" => {
                    AnyOptimizer::Adafactor(make_optimizer(&options, tensors, GroupOptions::to_adafactor)?)
                }
                "adam" => AnyOptimizer::Adam(make_optimizer(&options, tensors, |o| Adam(o.to_adamw()))?),
                "adamw" => AnyOptimizer::AdamW(make_optimizer(&options, tensors, GroupOptions::to_adamw)?),
                "lion" => AnyOptimizer::Lion(make_optimizer(&options, tensors, GroupOptions::to_lion)?),
                "sgd" => AnyOptimizer::Sgd(make_optimizer(&options, tensors, GroupOptions::to_sgd)?),
                other => {
                    return Err(fail_code(Code::Internal, format!("there is no optimizer {other}")));
                }
            };
            s.optimizer_count += 1;
            let id = s.optimizer_count;
            s.optimizers.insert(id, made);
            Ok(id)
        })
    }

    /// Updates the parameters that have gradients; returns a handle of the gradients' norm, f32[]. A step with a
    /// gradient that is not finite is skipped; with `latches`, so are all later steps.
    #[napi(catch_unwind)]
    pub fn optimizer_step(
        &self,
        id: u32,
        options: Vec<GroupOptions>,
        clip: Option<f64>,
        latches: bool,
    ) -> Result<u32> {
        self.with_state(|s| {
            let optimizer = s.optimizer(id)?;
            optimizer.set_options(&options);
            let not_finite = if latches { NotFinite::Latch } else { NotFinite::Skip };
            let norm = with_optimizer!(optimizer, o => o.step(clip.map(|max| max as f32), not_finite))?;
            Ok(s.insert_value(norm))
        })
    }

    #[napi(catch_unwind)]
    pub fn optimizer_zero_grad(&self, id: u32) -> Result<()> {
        self.with_state(|s| {
            with_optimizer!(s.optimizer(id)?, o => o.zero_grad());
            Ok(())
        })
    }

    /// Returns the state of every parameter, in the order of their registration.
    #[napi(catch_unwind)]
    pub fn optimizer_state(&self, id: u32) -> Result<Vec<OptimizerState>> {
        self.with_state(|s| {
            let states = with_optimizer!(s.optimizer(id)?, o => o.state());
            let handles = |ParameterState { step, values }| OptimizerState {
                step: step as f64,
                values: values.into_iter().map(|v| s.insert_value(v)).collect(),
            };
            Ok(states.into_iter().map(handles).collect())
        })
    }

    /// Loads a state; on an error nothing changes.
    #[napi(catch_unwind)]
    pub fn optimizer_load_state(&self, id: u32, state: Vec<OptimizerState>) -> Result<()> {
        self.with_state(|s| {
            let state: Vec<ParameterState> = state
                .iter()
                .map(|one| {
                    let tensors = s.parameters(&one.values)?;
                    let values = tensors.iter().map(Tensor::value).collect();
                    Ok(ParameterState { step: one.step as u64, values })
                })
                .collect::<engine::Result<_>>()?;
            with_optimizer!(s.optimizer(id)?, o => o.load_state(&state))
        })
    }

    /// Returns a handle of the number of steps that the latch skipped, f32[].
    #[napi(catch_unwind)]
    pub fn optimizer_undone(&self, id: u32) -> Result<u32> {
        self.with_state(|s| {
            let undone = with_optimizer!(s.optimizer(id)?, o => o.undone());
            Ok(s.insert_value(undone))
        })
    }

    /// Returns a handle of the number of skipped steps that set no latch and are still counted, f32[].
    #[napi(catch_unwind)]
    pub fn optimizer_left_out(&self, id: u32) -> Result<u32> {
        self.with_state(|s| {
            let left_out = with_optimizer!(s.optimizer(id)?, o => o.uncounted_steps());
            Ok(s.insert_value(left_out))
        })
    }

    /// Subtracts `steps` skipped steps from the step counts.
    #[napi(catch_unwind)]
    pub fn optimizer_count_out(&self, id: u32, steps: u32) -> Result<()> {
        self.with_state(|s| {
            with_optimizer!(s.optimizer(id)?, o => o.uncount_steps(steps as u64));
            Ok(())
        })
    }

    /// Clears the latch, so that steps update again, and subtracts `undone` from the step counts.
    #[napi(catch_unwind)]
    pub fn optimizer_clear_latch(&self, id: u32, undone: u32) -> Result<()> {
        self.with_state(|s| {
            with_optimizer!(s.optimizer(id)?, o => o.clear_latch(undone as u64));
            Ok(())
        })
    }

    /// Frees the optimizer's state; does nothing if its number is already free.
    #[napi(catch_unwind)]
    pub fn dispose_optimizer(&self, id: u32) {
        let (optimizer, exchange) = {
            let mut state = self.state.borrow_mut();
            (state.optimizers.remove(&id), state.exchanges.remove(&id))
        };
        drop((optimizer, exchange));
    }

    /// Scales all gradients together to a norm of at most `max`; returns a handle of the previous norm, f32[].
    #[napi(catch_unwind)]
    pub fn clip_grad_norm(&self, device: String, parameters: Vec<u32>, max: f64) -> Result<u32> {
        self.with_state(|s| {
            let cx = s.context(&device)?;
            let tensors = s.parameters(&parameters)?;
            let norm = clip::clip_grad_norm(&cx, &tensors, max as f32)?;
            Ok(s.insert_value(norm))
        })
    }
}
