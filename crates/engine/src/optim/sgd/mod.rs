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
//! Layout: equal ranges of the arenas, one invocation an element. Cost: one pass, bound by memory.

mod native;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use smallvec::SmallVec;

use super::span::{BINDINGS, variants};
use super::{Rule, Span};
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, Kernel, Scalar, Twin, joined, members_of};

const SCALARS: [Scalar; 3] = [Scalar::U32("size"), Scalar::F32("lr"), Scalar::F32("decay")];

static SGD: Kernel = Kernel {
    name: "sgd",
    bindings: &BINDINGS,
    scalars: || members_of(&SCALARS),
    twin: Twin::Both { wgsl: |_| include_str!("sgd.wgsl").into(), native: native::sgd },
    variants: || variants(0),
};

static MOMENTUM: Kernel = Kernel {
    name: "sgd momentum",
    bindings: &joined::<_, 4>(&BINDINGS, &[("buffer", Access::ReadWrite)]),
    scalars: || {
        members_of(&joined::<_, 7>(
            &SCALARS,
            &[Scalar::F32("momentum"), Scalar::F32("rate"), Scalar::U32("nesterov"), Scalar::F32("count")],
        ))
    },
    twin: Twin::Both { wgsl: |_| include_str!("momentum.wgsl").into(), native: native::momentum },
    variants: || variants(1),
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
    /// PyTorch's.
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
        let bits = |v: f64| (v as f32).to_bits();
        let mut scalars: SmallVec<[u32; 8]> = SmallVec::from_slice(&[bits(lr), bits(weight_decay)]);
        let mut kernel = &SGD;
        if !span.states.is_empty() {
            kernel = &MOMENTUM;
            // Before the first update the buffer is zero, so that μb + 1·d is d. Where steps before were left out the
            // kernel sees that it is the first.
            let rate = if step == 1 { 1.0 } else { 1.0 - dampening };
            scalars.extend([bits(momentum), bits(rate), nesterov as u32, bits(step as f64)]);
        }
        span.launch(cx, Self::NAME, kernel, &scalars, 8)
    }
}
