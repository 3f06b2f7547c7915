//! y = W ⋆ x + b: a convolution as in PyTorch (a correlation), over one to three dimensions.
//!
//! Shapes: x [B, C, *size], W [O, C/groups, *kernel], b [O], y [B, O, *out] with out = ⌊(size + padding −
//! dilation·(kernel − 1) − 1) / stride⌋ + 1. W is f32, or f16 or bf16 if frozen. Padding is zeros, separate for each
//! side; for other kinds apply `pad` first.
//! Backward: d_x is a correlation of d with the reversed W, one for each residue of the stride; d_W correlates x with
//! d; d_b sums d. Saved: W if x needs a gradient, x if W does.
//! Scratch: if x needs a gradient, the size of W and, at a stride over 1, a part of d_x. On the processor in addition,
//! for 3 × 3 taps at stride 1 with at least 32 channels, 16/9 of W's elements in f32 (kernels/conv/winograd).
//! Source: torch.nn.functional.conv1d, conv2d, conv3d.

pub(in crate::ops) mod backward;
#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::conv::{ConvGeometry, Correlation, LARGEST, correlate, correlate_weight};
use crate::kernels::reduce::{Reduction, reduce};
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};
use crate::shape::{Shape, pad_to_three};

/// A convolution over [x, weight] or [x, weight, bias]; parameters have one entry for each dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv {
    pub stride: Vec<usize>,
    /// Zeros before and after.
    pub padding: Vec<[usize; 2]>,
    pub dilation: Vec<usize>,
    pub groups: usize,
}

impl Conv {
    /// A convolution over `dims` dimensions, without padding.
    pub fn new(dims: usize) -> Conv {
        Conv { stride: vec![1; dims], padding: vec![[0, 0]; dims], dilation: vec![1; dims], groups: 1 }
    }

    fn dims(&self) -> usize {
        self.stride.len()
    }

    /// The sizes of a convolution with valid inputs and output.
    pub(in crate::ops) fn compute_geometry(&self, x: &Shape, weight: &Shape, y: &Shape) -> ConvGeometry {
        let expand = |list: &[usize]| pad_to_three(list, 1);
        let before: Vec<isize> = self.padding.iter().map(|p| -(p[0] as isize)).collect();
        ConvGeometry {
            batch: x[0],
            groups: self.groups,
            rows: weight[0] / self.groups,
            channels: weight[1],
            size: expand(&x[2..]),
            out: expand(&y[2..]),
            taps: expand(&weight[2..]),
            stride: expand(&self.stride),
            first: pad_to_three(&before, 0),
            step: expand(&self.dilation).map(|d| d as isize),
        }
    }

    fn check_channels(&self, x: &Spec, weight: &Spec, bias: Option<&Spec>) -> Result<()> {
        let (dims, groups) = (self.dims(), self.groups);
        if x.dtype != DType::F32 || !weight.dtype.is_float() {
            fail!(Dtype, "conv: takes an f32 input and a float weight, not {x} and {weight}");
        }
        if x.shape.rank() != dims + 2 || weight.shape.rank() != dims + 2 {
            fail!(
                ShapeMismatch,
                "conv: over {dims} dimensions takes an input [B, C, …] and a weight [O, C / groups, …] of \
                 {} dimensions, not {} and {}",
                dims + 2,
                x.shape,
                weight.shape
            );
        }
        let (channels, out) = (x.shape[1], weight.shape[0]);
        if groups == 0 || !channels.is_multiple_of(groups) || !out.is_multiple_of(groups) {
            fail!(
                ShapeMismatch,
                "conv: {groups} groups do not divide {channels} channels in and {out} out evenly"
            );
        }
        if weight.shape[1] * groups != channels || weight.shape.contains(&0) {
            fail!(
                ShapeMismatch,
                "conv: an input of shape {} in {groups} groups does not fit a weight of shape {}: the \
                 input has {channels} channels, the weight takes {}",
                x.shape,
                weight.shape,
                weight.shape[1] * groups
            );
        }
        if let Some(bias) = bias
            && (bias.dtype != DType::F32 || bias.shape[..] != [out])
        {
            fail!(ShapeMismatch, "conv: the bias is {bias}, the weight {weight} requires f32[{out}]");
        }
        Ok(())
    }

    /// The size of y along dimension `d`.
    fn compute_extent(&self, d: usize, size: usize, kernel: usize) -> Result<usize> {
        let (stride, dilation) = (self.stride[d], self.dilation[d]);
        for (what, n) in [("stride", stride), ("dilation", dilation), ("kernel", kernel)] {
            if n == 0 || n > LARGEST {
                fail!(Option, "conv: a {what} is 1 to {LARGEST}, not {n}");
            }
        }
        let padded = size + self.padding[d][0] + self.padding[d][1];
        let span = dilation * (kernel - 1) + 1;
        if padded < span {
            fail!(
                ShapeMismatch,
                "conv: a kernel of {kernel} spans {span} elements at dilation {dilation}, the padded input \
                 has {padded} in dimension {}",
                d + 2
            );
        }
        Ok((padded - span) / stride + 1)
    }
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let (x, weight) = (inputs[0], inputs[1]);
        self.check_channels(x, weight, inputs.get(2).copied())?;
        let mut y = vec![x.shape[0], weight.shape[0]];
        for d in 0..self.dims() {
            y.push(self.compute_extent(d, x.shape[d + 2], weight.shape[d + 2])?);
        }
        Ok(vec![Spec::f32(&y[..])])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (x, weight, y) = (inputs[0], inputs[1], &outputs[0]);
        let geometry = self.compute_geometry(&x.shape, &weight.shape, &y.shape);
        correlate(cx, Correlation { geometry: &geometry, x, w: weight, bias: inputs.get(2).copied(), y })
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
        let geometry = self.compute_geometry(x, weight, &d.shape);
        let d_input = |i: usize| match i {
            0 => {
                let d_x = cx.empty(x.clone(), DType::F32)?;
                backward::append_d_x(cx, &geometry, d, pass.input(1), &d_x)?;
                Ok(d_x)
            }
            1 => {
                let (d_weight, adds) = pass.into.choose_destination(cx, 1, weight.clone())?;
                correlate_weight(cx, &geometry, pass.input(0), d, adds, &d_weight)?;
                Ok(d_weight)
            }
            _ => append_d_bias(cx, &geometry, d),
        };
        (0..pass.needs.len()).map(|i| pass.needs[i].then(|| d_input(i)).transpose()).collect()
    }
}

/// The sum of d over the batch and the positions.
fn append_d_bias(cx: &Rc<Context>, geometry: &ConvGeometry, d: &Value) -> Result<Value> {
    let (batch, out) = (geometry.batch, geometry.groups * geometry.rows);
    let images = cx.empty([batch, out], DType::F32)?;
    reduce(cx, Reduction::Sum, d, [batch * out, geometry.positions(), 1], &images)?;
    let d_bias = cx.empty([out], DType::F32)?;
    reduce(cx, Reduction::Sum, &images, [1, batch, out], &d_bias)?;
    Ok(d_bias)
}
