//! y = x·Wᵀ + b.
//!
//! Shapes: x [.., I], W [O, I] (or [I, O] with `fan_in_fan_out`, as GPT-2 stores it), b [O], y [.., O]. W is f32, or
//! f16, bf16 or blocks if frozen. Backward: d_x = d·W; d_W = dᵀ·x; d_b is the sum of d's rows. Saved: W if x needs a
//! gradient, x if W does.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::gemm::{Gemm, Matrix, Precision, Segment, gemm, gemm_with};
use crate::kernels::reduce::{Reduction, reduce};
use crate::op::{Backward, BackwardReads, Destinations, Gradient, Gradients, Op};
use crate::shape::Shape;

/// A dense layer over [x, weight] or [x, weight, bias].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Linear {
    /// W is stored as [I, O].
    pub fan_in_fan_out: bool,
    /// The precision of the products by W: y, and the gradient of x.
    pub precision: Precision,
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn in_blocks(&self) -> u32 {
        0b10
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let y = infer_shape(self.name(), self.fan_in_fan_out, inputs[0], inputs[1], inputs.get(2).copied())?;
        Ok(vec![Spec::f32(y)])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        append_dense(cx, *self, inputs[0], inputs[1], inputs.get(2).copied(), None, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b11, 0)
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        BackwardReads::of_product(needs)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let d_input = |i: usize| match i {
            0 => append_d_x(cx, *self, d, pass.input(1), None, &pass.into),
            1 => append_d_weight(cx, self.fan_in_fan_out, d, pass.input(0), &pass.into),
            _ => append_d_bias(cx, d),
        };
        (0..pass.needs.len()).map(|i| pass.needs[i].then(|| d_input(i)).transpose()).collect()
    }
}

/// Returns the shape of y, for `op`.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` and `ERR_DTYPE`, with `op` and the shapes.
pub fn infer_shape(
    op: &str,
    fan_in_fan_out: bool,
    x: &Spec,
    weight: &Spec,
    bias: Option<&Spec>,
) -> Result<Shape> {
    if x.dtype != DType::F32 || !weight.dtype.is_weight() {
        fail!(Dtype, "{op}: takes an f32 input and a float weight, not {x} and {weight}");
    }
    if x.shape.rank() == 0 || weight.shape.rank() != 2 {
        fail!(ShapeMismatch, "{op}: input of shape {} and weight of shape {}", x.shape, weight.shape);
    }
    let (features, out) = match fan_in_fan_out {
        false => (weight.shape[1], weight.shape[0]),
        true => (weight.shape[0], weight.shape[1]),
    };
    if x.shape.last() != features {
        fail!(
            ShapeMismatch,
            "{op}: an input of shape {} does not fit a weight of shape {}{}: the input has {} features, the weight takes {features}",
            x.shape,
            weight.shape,
            if fan_in_fan_out { " (in, out)" } else { "" },
            x.shape.last()
        );
    }
    if let Some(bias) = bias
        && (bias.dtype != DType::F32 || bias.shape[..] != [out])
    {
        fail!(ShapeMismatch, "{op}: the bias is {bias}, the weight {weight} requires f32[{out}]");
    }
    let mut dims = x.shape.to_vec();
    *dims.last_mut().expect("rank of at least 1") = out;
    Ok(Shape::new(&dims))
}

/// Appends y = x·Wᵀ + b, plus the second segment.
pub fn append_dense(
    cx: &Rc<Context>,
    layer: Linear,
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    second: Option<Segment>,
    y: &Value,
) -> Result<()> {
    let (features, out) = (x.shape.last(), y.shape.last());
    gemm_with(
        cx,
        Gemm::new(x.shape.rows(), out, features).precision(layer.precision),
        Matrix::new(x, features),
        Matrix::new(weight, weight.shape[1]).transposed_if(!layer.fan_in_fan_out),
        bias,
        second,
        Matrix::new(y, out),
    )
}

/// Returns d·W plus the second segment; x is input 0.
pub fn append_d_x(
    cx: &Rc<Context>,
    layer: Linear,
    d: &Value,
    weight: &Value,
    second: Option<Segment>,
    into: &Destinations,
) -> Result<Value> {
    let out = d.shape.last();
    let features = weight.shape[1 - layer.fan_in_fan_out as usize];
    let mut dims = d.shape.to_vec();
    *dims.last_mut().expect("rank of at least 1") = features;
    let (d_x, adds) = into.choose_destination(cx, 0, &dims[..])?;
    gemm_with(
        cx,
        Gemm::new(d.shape.rows(), features, out).precision(layer.precision).accumulate_if(adds),
        Matrix::new(d, out),
        Matrix::new(weight, weight.shape[1]).transposed_if(layer.fan_in_fan_out),
        None,
        second,
        Matrix::new(&d_x, features),
    )?;
    Ok(d_x)
}

/// Returns dᵀ·x in the weight's layout; the weight is input 1.
pub fn append_d_weight(
    cx: &Rc<Context>,
    fan_in_fan_out: bool,
    d: &Value,
    x: &Value,
    into: &Destinations,
) -> Result<Value> {
    let (rows, out, features) = (x.shape.rows(), d.shape.last(), x.shape.last());
    let (d, x) = (Matrix::new(d, out), Matrix::new(x, features));
    let (m, n, a, b) = if fan_in_fan_out { (features, out, x.t(), d) } else { (out, features, d.t(), x) };
    let (d_weight, adds) = into.choose_destination(cx, 1, [m, n])?;
    gemm(cx, Gemm::new(m, n, rows).accumulate_if(adds), a, b, None, Matrix::new(&d_weight, n))?;
    Ok(d_weight)
}

/// Returns the sum of d's rows.
pub fn append_d_bias(cx: &Rc<Context>, d: &Value) -> Result<Value> {
    let d_bias = cx.empty([d.shape.last()], DType::F32)?;
    reduce(cx, Reduction::Sum, d, [1, d.shape.rows(), d.shape.last()], &d_bias)?;
    Ok(d_bias)
}
