//! AdamW: Adam with decoupled weight decay, as `torch.optim.AdamW`; and Adam, as `torch.optim.Adam`, whose weight
//! decay λp is added to the gradient (L2 regularisation) instead of the first line below.
//!
//! Maths, for update t of an element p with gradient g (already scaled by the factor of clipping):
//!
//! ```text
//! p ← p · (1 − lr·λ)
//! m ← m + (1 − β₁)(g − m)        v ← β₂ v + (1 − β₂) g²
//! p ← p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
//! ```
//!
//! The terms that depend on t alone are computed on the host in f64. If steps were skipped that the host still counts,
//! the kernel recomputes them for the actual t: 1 − βᵗ = −expm1(t · ln β), in f32 by a series near 0, which keeps its
//! leading digits. Layout: value, gradient, m and v are equal ranges of four arenas; one invocation per element. Cost:
//! one pass that reads four values per element and writes three, bound by memory.

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
    pub(super) struct Scalars {
        size: u32,
        /// The factor of a parameter after weight decay.
        keep: f32,
        rate1: f32,
        beta2: f32,
        rate2: f32,
        /// √(1 − β₂ᵗ), and lr / (1 − β₁ᵗ), if no step was skipped.
        root: f32,
        eps: f32,
        step: f32,
        /// The values from which both are recomputed otherwise.
        count: f32,
        log1: f32,
        log2: f32,
        lr: f32,
        /// Adam's weight decay: the factor of the parameter that is added to the gradient.
        decay: f32,
    }
}

const MOMENTS: [(&str, Access); 2] = [("first", Access::ReadWrite), ("second", Access::ReadWrite)];

static ADAMW: Kernel = Kernel {
    name: "adamw",
    bindings: &concat::<_, 5>(&BINDINGS, &MOMENTS),
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("adamw.wgsl").replace("GRADIENT", "load_grad(i) * load_verdict(0u)"),
        native: native::adam::<native::Decoupled>,
    },
    variants: || list_variants(2),
};

static ADAM: Kernel = Kernel {
    name: "adam",
    bindings: &concat::<_, 5>(&BINDINGS, &MOMENTS),
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| {
            let gradient = "fma(p.decay, load_value(i), load_grad(i) * load_verdict(0u))";
            include_str!("adamw.wgsl").replace("GRADIENT", gradient)
        },
        native: native::adam::<native::InGradient>,
    },
    variants: || list_variants(2),
};

pub const KERNELS: &[&Kernel] = &[&ADAMW, &ADAM];

/// The options of a parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// PyTorch's defaults.
    fn default() -> Self {
        AdamW { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

impl Rule for AdamW {
    const NAME: &'static str = "AdamW";
    const TRACED: &'static str = "adamw";
    const STATES: &'static [&'static str] = &["exp_avg", "exp_avg_sq"];

    fn check(&self) -> Result<()> {
        self.check_as(Self::NAME)
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn update(&self, cx: &Rc<Context>, step: u64, span: &Span) -> Result<()> {
        self.launch(cx, step, span, &ADAMW)
    }
}

/// The options of a parameter group of Adam, with AdamW's fields. The weight decay is added to the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam(pub AdamW);

impl Rule for Adam {
    const NAME: &'static str = "Adam";
    const TRACED: &'static str = "adam";
    const STATES: &'static [&'static str] = AdamW::STATES;

    fn check(&self) -> Result<()> {
        self.0.check_as(Self::NAME)
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn update(&self, cx: &Rc<Context>, step: u64, span: &Span) -> Result<()> {
        self.0.launch(cx, step, span, &ADAM)
    }
}

impl AdamW {
    fn check_as(&self, optimizer: &str) -> Result<()> {
        let AdamW { lr, betas, eps, weight_decay } = *self;
        for (name, value) in [("lr", lr), ("eps", eps), ("weightDecay", weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                fail!(Option, "{optimizer}: {name} is 0 or more, not {value}");
            }
        }
        check_betas(optimizer, betas)
    }

    fn launch(&self, cx: &Rc<Context>, step: u64, span: &Span, kernel: &'static Kernel) -> Result<()> {
        let AdamW { lr, betas: [beta1, beta2], eps, weight_decay } = *self;
        let power = |beta: f64| beta.powf(step as f64);
        let scalars = |size| Scalars {
            size,
            keep: if std::ptr::eq(kernel, &ADAM) { 1.0 } else { (1.0 - lr * weight_decay) as f32 },
            rate1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rate2: (1.0 - beta2) as f32,
            root: (1.0 - power(beta2)).sqrt() as f32,
            eps: eps as f32,
            step: (lr / (1.0 - power(beta1))) as f32,
            count: step as f32,
            log1: beta1.ln() as f32,
            log2: beta2.ln() as f32,
            lr: lr as f32,
            decay: weight_decay as f32,
        };
        span.launch(cx, kernel.name, kernel, |size| scalars(size).words(), 16)
    }
}

/// Checks the betas.
///
/// # Errors
/// `ERR_OPTION` unless both are at least 0 and below 1.
pub(super) fn check_betas(optimizer: &str, betas: [f64; 2]) -> Result<()> {
    if let Some(beta) = betas.iter().find(|b| !(0.0..1.0).contains(*b)) {
        fail!(Option, "{optimizer}: betas are at least 0 and below 1, not {beta}");
    }
    Ok(())
}
