//! SGD with momentum, dampening, Nesterov's form and weight decay, as `torch.optim.SGD`.
//!
//! Maths, for an element p with gradient g (already scaled by the factor of clipping):
//!
//! ```text
//! d = g + λp
//! b ← d at the first update, else μb + (1 − τ)d        (where μ ≠ 0)
//! p ← p − lr · (d + μb with Nesterov, b with momentum, d without)
//! ```
//!
//! Layout: equal ranges of the arenas, one invocation per element. Cost: one pass, bound by memory.

mod native;
#[cfg(test)]
mod plain;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use super::span::{BINDINGS, list_variants};
use super::{Rule, Span};
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, Implementations, Kernel, concat};
use crate::scalars;

scalars! {
    pub(super) struct Plain { size: u32, lr: f32, decay: f32 }
}

scalars! {
    pub(super) struct Momentum {
        plain: Plain,
        momentum: f32,
        /// 1 − dampening; 1 in the first step.
        rate: f32,
        nesterov: bool,
        /// Steps so far.
        count: f32,
    }
}

static SGD: Kernel = Kernel {
    name: "sgd",
    bindings: &BINDINGS,
    scalars: Plain::members,
    implementations: Implementations::Both { wgsl: |_| include_str!("sgd.wgsl").into(), native: native::sgd },
    variants: || list_variants(0),
};

static MOMENTUM: Kernel = Kernel {
    name: "sgd momentum",
    bindings: &concat::<_, 4>(&BINDINGS, &[("buffer", Access::ReadWrite)]),
    scalars: Momentum::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("momentum.wgsl").into(),
        native: native::momentum,
    },
    variants: || list_variants(1),
};

pub const KERNELS: &[&Kernel] = &[&SGD, &MOMENTUM];

/// The options of a parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub lr: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub weight_decay: f64,
    pub nesterov: bool,
}

impl Default for Sgd {
    /// PyTorch's defaults.
    fn default() -> Self {
        Sgd { lr: 1e-3, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }
}

impl Rule for Sgd {
    const NAME: &'static str = "SGD";
    const TRACED: &'static str = "sgd";
    const STATES: &'static [&'static str] = &["momentum_buffer"];

    fn check(&self) -> Result<()> {
        let Sgd { lr, momentum, dampening, weight_decay, nesterov } = *self;
        for (name, value) in [("lr", lr), ("momentum", momentum), ("weightDecay", weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                fail!(Option, "SGD: {name} is 0 or more, not {value}");
            }
        }
        if !dampening.is_finite() {
            fail!(Option, "SGD: dampening is a number, not {dampening}");
        }
        if nesterov && (momentum == 0.0 || dampening != 0.0) {
            fail!(Option, "SGD: nesterov takes a momentum and no dampening, not {momentum} and {dampening}");
        }
        Ok(())
    }

    fn keeps_state(&self) -> bool {
        self.momentum != 0.0
    }

    fn update(&self, cx: &Rc<Context>, step: u64, span: &Span) -> Result<()> {
        let Sgd { lr, momentum, dampening, weight_decay, nesterov } = *self;
        let plain = |size| Plain { size, lr: lr as f32, decay: weight_decay as f32 };
        if span.states.is_empty() {
            return span.launch(cx, Self::NAME, &SGD, |size| plain(size).words(), 8);
        }
        // Before the first update the buffer is zero, so μb + 1·d equals d. If earlier steps were skipped, the kernel
        // detects the first.
        let rate = if step == 1 { 1.0 } else { 1.0 - dampening } as f32;
        let (momentum, count) = (momentum as f32, step as f32);
        let scalars = |size| Momentum { plain: plain(size), momentum, rate, nesterov, count };
        span.launch(cx, Self::NAME, &MOMENTUM, |size| scalars(size).words(), 8)
    }
}
