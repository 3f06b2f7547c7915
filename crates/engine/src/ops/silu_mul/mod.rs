//! y = silu(gate) · up: the product of a gated MLP.
//!
//! Shapes: gate, up and y are equal. Backward: d_up = d · silu(gate), d_gate = d · up · silu'(gate), in one pass;
//! d_gate overwrites d. Saved: gate and up; silu(gate) is recomputed.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map, silu_mul_backward};
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};

/// Inputs: gate, up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiluMul;

impl Op for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [gate, up] = [inputs[0], inputs[1]];
        if gate.dtype != DType::F32 || up.dtype != DType::F32 {
            fail!(Dtype, "silu_mul: takes f32, not gate {gate} and up {up}; convert with to(\"f32\")");
        }
        if gate.shape != up.shape {
            fail!(ShapeMismatch, "silu_mul: gate {} and up {} differ", gate.shape, up.shape);
        }
        Ok(vec![gate.clone()])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        map(cx, Function::SiluMul, inputs, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b11, 0)
    }

    fn is_recomputed(&self) -> bool {
        true
    }

    /// The gradient of up does not read up.
    fn reads(&self, needs: &[bool]) -> BackwardReads {
        BackwardReads { inputs: if needs[0] { 0b11 } else { 0b01 }, outputs: 0 }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let (d, gate) = (pass.d_out(), pass.input(0));
        let make = |function, operands: &[&Value]| {
            let y = cx.empty(d.shape.clone(), DType::F32)?;
            map(cx, function, operands, &y)?;
            Ok(Some(y))
        };
        match pass.needs[..] {
            [true, true] => {
                let d_up = cx.empty(d.shape.clone(), DType::F32)?;
                let d_gate = pass.take_or_copy(cx, d)?;
                silu_mul_backward(cx, gate, pass.input(1), &d_gate, &d_up)?;
                Ok(vec![Some(d_gate), Some(d_up)])
            }
            [true, _] => Ok(vec![make(Function::SiluMulBackward, &[d, gate, pass.input(1)])?, None]),
            _ => Ok(vec![None, make(Function::SiluMul, &[gate, d])?]),
        }
    }
}
