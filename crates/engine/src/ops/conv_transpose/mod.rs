//! The transposed convolution: the gradient of `conv` with respect to x, as a separate operation.
//!
//! Shapes: x [B, I, *size], W [I, O/groups, *kernel], y [B, O, *out] with out = (size − 1)·stride − padding +
//! dilation·(kernel − 1) + output padding + 1. W is f32, or f16 or bf16 if frozen. The convolution of y with W has x's
//! shape.
//! Backward: d_x is that convolution of d; d_W correlates d with x. Saved: W if x needs a gradient, x if W does.
//! Scratch: the size of W and, at a stride over 1, a part of y; on the processor in addition the scratch of `conv`.
//! Source: Dumoulin and Visin 2016, section 4; torch.nn.functional.conv_transpose1d, 2d, 3d.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::conv::{Correlation, LARGEST, correlate, correlate_weight};
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};
use crate::ops::conv::{Conv, backward};

/// A transposed convolution over [x, weight]; parameters have one entry for each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvTranspose {
    /// The convolution from y to x.
    pub conv: Conv,
    /// Elements added to y's end: selects among the sizes of y that give x's size.
    pub output_padding: Vec<usize>,
}

impl ConvTranspose {
    fn check(&self, x: &Spec, weight: &Spec) -> Result<()> {
        let (dims, groups) = (self.conv.stride.len(), self.conv.groups);
        if x.dtype != DType::F32 || !weight.dtype.is_float() {
            fail!(Dtype, "convTranspose: takes an f32 input and a float weight, not {x} and {weight}");
        }
        if x.shape.rank() != dims + 2 || weight.shape.rank() != dims + 2 {
            fail!(
                ShapeMismatch,
                "convTranspose: over {dims} dimensions takes an input [B, C, …] and a weight \
                 [C, O / groups, …] of {} dimensions, not {} and {}",
                dims + 2,
                x.shape,
                weight.shape
            );
        }
        if groups == 0 || !weight.shape[0].is_multiple_of(groups) {
            fail!(ShapeMismatch, "convTranspose: {groups} groups do not divide {} channels", weight.shape[0]);
        }
        if x.shape[1] != weight.shape[0] || weight.shape.contains(&0) || x.shape[2..].contains(&0) {
            fail!(
                ShapeMismatch,
                "convTranspose: an input of shape {} does not fit a weight of shape {}: the input has {} channels, the weight takes {}",
                x.shape,
                weight.shape,
                x.shape[1],
                weight.shape[0]
            );
        }
        Ok(())
    }

    /// The size of y along dimension `d`.
    fn compute_extent(&self, d: usize, size: usize, kernel: usize) -> Result<usize> {
        let (stride, dilation) = (self.conv.stride[d], self.conv.dilation[d]);
        for (what, n) in [("stride", stride), ("dilation", dilation), ("kernel", kernel)] {
            if n == 0 || n > LARGEST {
                fail!(Option, "convTranspose: a {what} is 1 to {LARGEST}, not {n}");
            }
        }
        let more = self.output_padding[d];
        if more >= stride.max(dilation) {
            fail!(
                Option,
                "convTranspose: an output padding of {more} is not below the stride {stride} or the dilation \
                 {dilation}"
            );
        }
        let [before, after] = self.conv.padding[d];
        let whole = (size - 1) * stride + dilation * (kernel - 1) + more + 1;
        match whole.checked_sub(before + after) {
            Some(out) if out > 0 => Ok(out),
            _ => fail!(
                ShapeMismatch,
                "convTranspose: padding of {} leaves nothing of {whole} elements in dimension {}",
                before + after,
                d + 2
            ),
        }
    }
}

impl Op for ConvTranspose {
    fn name(&self) -> &'static str {
        "convTranspose"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let (x, weight) = (inputs[0], inputs[1]);
        self.check(x, weight)?;
        let mut y = vec![x.shape[0], weight.shape[1] * self.conv.groups];
        for d in 0..self.conv.stride.len() {
            y.push(self.compute_extent(d, x.shape[d + 2], weight.shape[d + 2])?);
        }
        Ok(vec![Spec::f32(&y[..])])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (x, weight, y) = (inputs[0], inputs[1], &outputs[0]);
        let geometry = self.conv.compute_geometry(&y.shape, &weight.shape, &x.shape);
        backward::append_d_x(cx, &geometry, x, weight, y)
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b11, 0)
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        BackwardReads::of_product(needs)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let (x, weight) = (&pass.input_specs[0].shape, &pass.input_specs[1].shape);
        let geometry = self.conv.compute_geometry(&d.shape, weight, x);
        let mut d_inputs = vec![None, None];
        if pass.needs[0] {
            let d_x = cx.empty(x.clone(), DType::F32)?;
            correlate(cx, Correlation { geometry: &geometry, x: d, w: pass.input(1), bias: None, y: &d_x })?;
            d_inputs[0] = Some(d_x);
        }
        if pass.needs[1] {
            let (d_weight, adds) = pass.into.choose_destination(cx, 1, weight.clone())?;
            correlate_weight(cx, &geometry, d, pass.input(0), adds, &d_weight)?;
            d_inputs[1] = Some(d_weight);
        }
        Ok(d_inputs)
    }
}
