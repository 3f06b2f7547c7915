//! y = x with each pair (i, i + h) of a head's dimensions rotated by the angles of its position.
//!
//! Shapes: x, y [B, T, H, D]; cos and sin [P, h] or [P, 2h], with h half of the rotated dimensions, computed on the
//! host in f64; positions, if given, i32 [B, T]. The half-split layout of transformers' Llama (`rotate_half`). Two
//! tensors that differ only in their heads are rotated together.
//! Backward: the inverse rotation of d_out; the tables have no gradient. Saved: the tables and positions.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::rotary::{Rotation, rotary, rotary_two};
use crate::op::{Backward, Gradient, Gradients, Op};

/// Inputs: x, or two tensors with `two`, then cos, sin, and with `positions` the positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotary {
    /// The first row's position.
    pub offset: usize,
    /// The last input has the positions; `offset` is not used.
    pub positions: bool,
    /// The number of rotated dimensions, the first of each head; default all.
    pub dims: Option<usize>,
    /// Rotate two tensors, such as q and k, with two outputs.
    pub two: bool,
}

impl Rotary {
    fn half(&self, dim: usize) -> usize {
        self.dims.unwrap_or(dim) / 2
    }

    /// The number of rotated tensors, which is the index of the first table.
    fn count_tensors(&self) -> usize {
        1 + self.two as usize
    }

    /// The index of the positions among the inputs.
    fn positions_index(&self) -> Option<usize> {
        self.positions.then_some(self.count_tensors() + 2)
    }

    fn check(&self, x: &Spec, cos: &Spec, sin: &Spec, positions: Option<&Spec>) -> Result<()> {
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
        if let Some(positions) = positions {
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
        Ok(())
    }
}

impl Op for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let first = self.count_tensors();
        if inputs.len() < first + 2 + self.positions as usize {
            fail!(ShapeMismatch, "rotary: there is nothing to turn");
        }
        let (cos, sin) = (inputs[first], inputs[first + 1]);
        for x in &inputs[..first] {
            self.check(x, cos, sin, self.positions_index().map(|i| inputs[i]))?;
        }
        let [x, last] = [inputs[0], inputs[first - 1]];
        if [0, 1, 3].iter().any(|d| x.shape[*d] != last.shape[*d]) {
            fail!(ShapeMismatch, "rotary: {} and {} differ in more than their heads", x.shape, last.shape);
        }
        Ok(inputs[..first].iter().map(|x| (*x).clone()).collect())
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let first = self.count_tensors();
        let (cos, sin) = (inputs[first], inputs[first + 1]);
        let positions = self.positions_index().map(|i| inputs[i]);
        if let Some(known) = positions.and_then(Value::host)
            && let Some(p) = known.iter().find(|p| **p < 0 || **p as usize >= cos.shape[0])
        {
            fail!(Index, "rotary: position {p} is not within the tables {}", cos.shape);
        }
        let half = self.half(inputs[0].shape[3]);
        let r = Rotation { cos, sin, positions, offset: self.offset, half, inverse: false };
        match self.two {
            true => rotary_two(cx, &r, [inputs[0], inputs[1]], [&outputs[0], &outputs[1]]),
            false => rotary(cx, &r, inputs[0], &outputs[0]),
        }
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(if self.positions { 0b111 } else { 0b11 } << self.count_tensors(), 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let first = self.count_tensors();
        if pass.needs[first] || pass.needs[first + 1] {
            fail!(NoGradient, "rotary: the tables have no gradient");
        }
        let (cos, sin) = (pass.input(first), pass.input(first + 1));
        let positions = self.positions_index().map(|i| pass.input(i));
        let mut d_inputs = vec![None; pass.needs.len()];
        let mut wanted = Vec::new();
        for (i, d) in pass.d_outs.iter().enumerate() {
            if let (Some(d), true) = (d, pass.needs[i]) {
                let d_x = cx.empty(d.shape.clone(), DType::F32)?;
                wanted.push((d, d_x.clone()));
                d_inputs[i] = Some(d_x);
            }
        }
        let half = wanted.first().map_or(0, |(d, _)| self.half(d.shape[3]));
        let r = Rotation { cos, sin, positions, offset: self.offset, half, inverse: true };
        match &wanted[..] {
            [(d, d_x), (d2, d_x2)] => rotary_two(cx, &r, [d, d2], [d_x, d_x2])?,
            [(d, d_x)] => rotary(cx, &r, d, d_x)?,
            _ => {}
        }
        Ok(d_inputs)
    }
}
