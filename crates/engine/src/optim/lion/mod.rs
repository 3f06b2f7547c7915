//! Lion, the sign of an interpolated momentum (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms",
//! algorithm 2).
//!
//! Maths, for an element p with gradient g (already scaled by the factor of clipping):
//!
//! ```text
//! c = β₁ m + (1 − β₁) g
//! p ← p · (1 − lr·λ) − lr · sign(c)
//! m ← β₂ m + (1 − β₂) g
//! ```
//!
//! Layout: value, gradient and m are equal ranges of three arenas; one invocation per element. Cost: one pass that
//! reads three values per element and writes two, bound by memory.

mod native;
#[cfg(test)]
mod plain;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use super::adamw::check_betas;
use super::span::{BINDINGS, list_variants};
use super::{Rule, Span};
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, Implementations, Kernel, concat};
use crate::scalars;

scalars! {
    pub(super) struct Scalars {
        size: u32,
        /// The factor of a parameter after weight decay.
        keep: f32,
        lr: f32,
        beta1: f32,
        rate1: f32,
        beta2: f32,
        rate2: f32,
    }
}

static LION: Kernel = Kernel {
    name: "lion",
    bindings: &concat::<_, 4>(&BINDINGS, &[("first", Access::ReadWrite)]),
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("lion.wgsl").into(),
        native: native::lion,
    },
    variants: || list_variants(1),
};

pub const KERNELS: &[&Kernel] = &[&LION];

/// The options of a parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    pub lr: f64,
    pub betas: [f64; 2],
    pub weight_decay: f64,
}

impl Default for Lion {
    /// The paper's betas; a tenth of Adam's learning rate.
    fn default() -> Self {
        Lion { lr: 1e-4, betas: [0.9, 0.99], weight_decay: 0.0 }
    }
}

impl Rule for Lion {
    const NAME: &'static str = "Lion";
    const TRACED: &'static str = "lion";
    const STATES: &'static [&'static str] = &["exp_avg"];

    fn check(&self) -> Result<()> {
        let Lion { lr, betas, weight_decay } = *self;
        for (name, value) in [("lr", lr), ("weightDecay", weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                fail!(Option, "Lion: {name} is 0 or more, not {value}");
            }
        }
        check_betas(Self::NAME, betas)
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn update(&self, cx: &Rc<Context>, _step: u64, span: &Span) -> Result<()> {
        let Lion { lr, betas: [beta1, beta2], weight_decay } = *self;
        let scalars = |size| Scalars {
            size,
            keep: (1.0 - lr * weight_decay) as f32,
            lr: lr as f32,
            beta1: beta1 as f32,
            rate1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rate2: (1.0 - beta2) as f32,
        };
        span.launch(cx, Self::NAME, &LION, |size| scalars(size).words(), 10)
    }
}
