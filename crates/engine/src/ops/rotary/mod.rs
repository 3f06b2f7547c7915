//! y = x with each pair (i, i + h) of a head's dimensions turned by its position's angles.
//!
//! Shapes: x, y [B, T, H, D]; cos and sin [P, h] or [P, 2h], h half of the rotated dimensions,
//! made on the host in f64; positions, where there are any, i32 [B, T]. The half-split layout of
//! transformers' Llama (`rotate_half`). Backward: the inverse rotation of d_out; the tables have no
//! gradient. Saved: the tables and positions.

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::rotary::{Rotate, rotary};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::tensor::{Context, Spec, Value};

/// Inputs: x, cos, sin, then the positions where the attribute says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotary {
    /// Position of the first row.
    pub offset: usize,
    /// The next input holds the positions, in place of `offset`.
    pub positions: bool,
    /// Dimensions that are rotated, the first of each head; all unless given.
    pub dims: Option<usize>,
}

impl Rotary {
    fn half(&self, dim: usize) -> usize {
        self.dims.unwrap_or(dim) / 2
    }

    fn run(
        &self,
        cx: &Rc<Context>,
        x: &Value,
        tables: [&Value; 2],
        positions: Option<&Value>,
        inverse: bool,
        y: &Value,
    ) -> Result<()> {
        let [cos, sin] = tables;
        let half = self.half(x.shape[3]);
        rotary(cx, &Rotate { x, cos, sin, positions, offset: self.offset, half, inverse }, y)
    }
}

impl Op for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [x, cos, sin] = [inputs[0], inputs[1], inputs[2]];
        if [x, cos, sin].iter().any(|v| v.dtype != DType::F32) {
            fail!(Dtype, "rotary: takes f32, not x {x}, cos {cos}, sin {sin}; convert with to(\"f32\")");
        }
        if x.shape.rank() != 4 {
            fail!(ShapeMismatch, "rotary: x {} is not [B, T, H, D]", x.shape);
        }
        let dim = x.shape[3];
        let dims = self.dims.unwrap_or(dim);
        if dims == 0 || !dims.is_multiple_of(2) || dims > dim {
            fail!(ShapeMismatch, "rotary: {dims} dimensions of x {} cannot be turned in pairs", x.shape);
        }
        let fits =
            cos.shape.rank() == 2 && cos.shape == sin.shape && [dims, dims / 2].contains(&cos.shape[1]);
        if !fits {
            fail!(
                ShapeMismatch,
                "rotary: tables cos {} and sin {} are not [P, {}] or [P, {dims}], for x {}",
                cos.shape,
                sin.shape,
                dims / 2,
                x.shape
            );
        }
        if self.positions {
            let positions = inputs[3];
            if positions.dtype != DType::I32 || positions.shape[..] != x.shape[..2] {
                fail!(ShapeMismatch, "rotary: positions {positions} are not i32 [B, T] of x {}", x.shape);
            }
        } else if self.offset + x.shape[1] > cos.shape[0] {
            fail!(
                ShapeMismatch,
                "rotary: positions {} to {} are past the tables {}",
                self.offset,
                self.offset + x.shape[1],
                cos.shape
            );
        }
        Ok(vec![x.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let positions = if self.positions { Some(inputs[3]) } else { None };
        let rows = inputs[1].shape[0];
        if let Some(known) = positions.and_then(Value::host)
            && let Some(p) = known.iter().find(|p| **p < 0 || **p as usize >= rows)
        {
            fail!(Index, "rotary: position {p} is not within the tables {}", inputs[1].shape);
        }
        self.run(cx, inputs[0], [inputs[1], inputs[2]], positions, false, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(if self.positions { 0b1110 } else { 0b110 }, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        if pass.needs[1] || pass.needs[2] {
            fail!(NoGradient, "rotary: the tables have no gradient");
        }
        let mut d_inputs = vec![None; pass.needs.len()];
        if let (Some(d), true) = (&pass.d_outs[0], pass.needs[0]) {
            let d_x = cx.empty(d.shape.clone(), DType::F32)?;
            let positions = if self.positions { Some(pass.input(3)) } else { None };
            self.run(cx, d, [pass.input(1), pass.input(2)], positions, true, &d_x)?;
            d_inputs[0] = Some(d_x);
        }
        Ok(d_inputs)
    }
}
