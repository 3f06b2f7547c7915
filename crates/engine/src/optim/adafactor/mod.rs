//! Adafactor (Shazeer and Stern 2018), as `torch.optim.Adafactor`: second moments of matrices by their rows' and
//! columns' means, so that the state of an R×C matrix has R + C values.
//!
//! Maths, for update t of a parameter p of n elements with gradient g (already scaled by the factor of clipping):
//!
//! ```text
//! ρ = min(lr, 1/√t)        α = max(ε₂, ‖p‖/√n) · ρ        β = t^decay
//! row ← row + β (mean of g² over columns − row)        col ← col + β (mean of g² over rows − col)
//! v = row · col / max(mean of row, ε₁)        or, of a vector, v ← v + β (g² − v)
//! u = g / √max(v, ε₁²)
//! p ← p · (1 − lr·λ) − α / max(1, ‖u‖ / (d√n)) · u
//! ```
//!
//! The kernels of operations compute this, in about thirty launches per parameter; the kernel here copies the results
//! into the parameter and its states, unless the verdict skips the step. t is computed on the device, which knows how
//! many steps were skipped. Cost: about ten passes over a parameter.

mod native;
#[cfg(test)]
mod plain;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use super::span::{BINDINGS, list_variants};
use super::{Rule, Span};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Implementations, Kernel};
use crate::kernels::elementwise::{Function, map};
use crate::op::run1;
use crate::ops::mean::Mean;
use crate::scalars;
use crate::shape::Shape;

scalars! {
    pub(super) struct Scalars { size: u32 }
}

/// value ← grad, unless the verdict skips the step.
static COMMIT: Kernel = Kernel {
    name: "adafactor commit",
    bindings: &BINDINGS,
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("commit.wgsl").into(),
        native: native::commit,
    },
    variants: || list_variants(0),
};

pub const KERNELS: &[&Kernel] = &[&COMMIT];

/// The options of a parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adafactor {
    pub lr: f64,
    /// The exponent of t in the share of a new gradient; at most 0.
    pub beta2_decay: f64,
    /// The lower bounds: of the root of a second moment, and of the scale of a parameter.
    pub eps: [f64; 2],
    /// The upper bound of an update's root mean square.
    pub d: f64,
    pub weight_decay: f64,
}

impl Default for Adafactor {
    /// PyTorch's defaults; ε₁ is f32's epsilon.
    fn default() -> Self {
        let eps = [f32::EPSILON as f64, 1e-3];
        Adafactor { lr: 1e-2, beta2_decay: -0.8, eps, d: 1.0, weight_decay: 0.0 }
    }
}

impl Rule for Adafactor {
    const NAME: &'static str = "Adafactor";
    const TRACED: &'static str = "adafactor";
    const STATES: &'static [&'static str] = &["row_var", "col_var", "variance"];
    const ONE_BY_ONE: bool = true;

    fn states(shape: &Shape) -> Vec<(&'static str, Shape)> {
        let rank = shape.rank();
        if rank < 2 {
            return vec![("variance", shape.clone())];
        }
        let without = |dim: usize| {
            let mut sizes = shape.to_vec();
            sizes[dim] = 1;
            Shape::new(&sizes)
        };
        vec![("row_var", without(rank - 1)), ("col_var", without(rank - 2))]
    }

    fn check(&self) -> Result<()> {
        let Adafactor { lr, beta2_decay, eps, d, weight_decay } = *self;
        let named = [("lr", lr), ("eps", eps[0]), ("eps", eps[1]), ("weightDecay", weight_decay)];
        for (name, value) in named {
            if !(value >= 0.0 && value.is_finite()) {
                fail!(Option, "Adafactor: {name} is 0 or more, not {value}");
            }
        }
        if !(beta2_decay <= 0.0 && beta2_decay.is_finite()) {
            fail!(Option, "Adafactor: beta2Decay is 0 or less, not {beta2_decay}");
        }
        if !(d >= 1.0 && d.is_finite()) {
            fail!(Option, "Adafactor: d is 1 or more, not {d}");
        }
        Ok(())
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn update(&self, cx: &Rc<Context>, step: u64, span: &Span) -> Result<()> {
        if span.value.size() == 0 {
            return Ok(());
        }
        let f = ValueFunctions { cx };
        let late = span.verdict.sub_range(2, []);
        let t = f.clamp_below(&f.apply(Function::Sub, &cx.constant(step as f32), &late)?, 1.0)?;
        let rate = f.apply(Function::Pow, &t, &cx.constant(self.beta2_decay as f32))?;
        let g = f.apply(Function::Mul, &span.grad, &span.verdict.sub_range(0, []))?;
        let squares = f.apply1(Function::Square, &g)?;
        let (states, second) = self.update_moments(&f, span, &squares, &rate)?;
        let eps = self.eps[0] as f32;
        let root = f.apply1(Function::Rsqrt, &f.clamp_below(&second, eps * eps)?)?;
        let u = f.apply(Function::Mul, &g, &root)?;
        let step_size = self.compute_step_size(&f, &span.value, &u, &t)?;
        let change = f.apply(Function::Mul, &u, &step_size)?;
        let decayed = match self.weight_decay {
            0.0 => span.value.clone(),
            decay => f.apply(Function::Mul, &span.value, &cx.constant((1.0 - self.lr * decay) as f32))?,
        };
        let value = f.apply(Function::Sub, &decayed, &change)?;
        for (old, new) in std::iter::once((&span.value, &value)).chain(span.states.iter().zip(&states)) {
            let verdict = span.verdict.clone();
            let part = Span { value: old.clone(), grad: new.clone(), states: Vec::new(), verdict };
            part.launch(cx, Self::NAME, &COMMIT, |size| Scalars { size }.words(), 1)?;
        }
        Ok(())
    }
}

impl Adafactor {
    /// The states after the update, and the second moment of every element that they represent.
    fn update_moments(
        &self,
        f: &ValueFunctions,
        span: &Span,
        squares: &Value,
        rate: &Value,
    ) -> Result<(Vec<Value>, Value)> {
        let lerp = |old: &Value, new: &Value| {
            let change = f.apply(Function::Mul, &f.apply(Function::Sub, new, old)?, rate)?;
            f.apply(Function::Add, old, &change)
        };
        let rank = squares.shape.rank();
        if rank < 2 {
            let variance = lerp(&span.states[0], squares)?;
            return Ok((vec![variance.clone()], variance));
        }
        let mean = |x: &Value, dim: usize, shape: &Shape| -> Result<Value> {
            Ok(run1(f.cx, &Mean { dim: Some(dim) }, &[x])?.reshape(shape.clone()))
        };
        let (row, col) = (&span.states[0], &span.states[1]);
        let row = lerp(row, &mean(squares, rank - 1, &row.shape)?)?;
        let col = lerp(col, &mean(squares, rank - 2, &col.shape)?)?;
        let mut one = row.shape.to_vec();
        one[rank - 2] = 1;
        let scale = f.clamp_below(&mean(&row, rank - 2, &Shape::new(&one))?, self.eps[0] as f32)?;
        let second = f.apply(Function::Mul, &f.apply(Function::Div, &row, &scale)?, &col)?;
        Ok((vec![row, col], second))
    }

    /// α / max(1, ‖u‖ / (d√n)), a scalar.
    fn compute_step_size(&self, f: &ValueFunctions, value: &Value, u: &Value, t: &Value) -> Result<Value> {
        let cx = f.cx;
        let rho = f.apply(Function::Minimum, &f.apply1(Function::Rsqrt, t)?, &cx.constant(self.lr as f32))?;
        let alpha = f.apply(Function::Mul, &f.clamp_below(&f.rms(value)?, self.eps[1] as f32)?, &rho)?;
        let excess = f.apply(Function::Div, &f.rms(u)?, &cx.constant(self.d as f32))?;
        f.apply(Function::Div, &alpha, &f.clamp_below(&excess, 1.0)?)
    }
}

/// Computes elementwise functions into new values.
struct ValueFunctions<'a> {
    cx: &'a Rc<Context>,
}

impl ValueFunctions<'_> {
    fn apply(&self, function: Function, a: &Value, b: &Value) -> Result<Value> {
        let y = self.cx.empty(Shape::broadcast(Adafactor::NAME, &a.shape, &b.shape)?, DType::F32)?;
        map(self.cx, function, &[a, b], &y)?;
        Ok(y)
    }

    fn apply1(&self, function: Function, x: &Value) -> Result<Value> {
        let y = self.cx.empty(x.shape.clone(), DType::F32)?;
        map(self.cx, function, &[x], &y)?;
        Ok(y)
    }

    fn clamp_below(&self, x: &Value, least: f32) -> Result<Value> {
        self.apply(Function::Maximum, x, &self.cx.constant(least))
    }

    /// √(Σ x² / n).
    fn rms(&self, x: &Value) -> Result<Value> {
        let mean = run1(self.cx, &Mean { dim: None }, &[&self.apply1(Function::Square, x)?])?;
        self.apply1(Function::Sqrt, &mean)
    }
}
