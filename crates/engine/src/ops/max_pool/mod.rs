//! y = the maximum of x over windows of its last dimensions.
//!
//! Shapes: x [.., *size], y [.., *out] with out = ⌊(size + 2·padding − kernel) / stride⌋ + 1; with `ceil` it is rounded
//! up if the last window starts within the size or the leading padding. NaN if a window contains one. Saved: the
//! position of each maximum, a hidden output. Backward: d_out goes to the first of equal maxima.
//! Source: torch.nn.functional.max_pool1d, 2d, 3d.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::pool::{Windows, max, max_backward};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::{Shape, pad_to_three};

/// Windows over the last dimensions, one entry each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub padding: Vec<usize>,
    /// Whether the last window may be partial.
    pub ceil: bool,
}

/// Splits off the last `dims` dimensions of an f32 input: the planes, and their sizes.
///
/// # Errors
/// `ERR_DTYPE` and `ERR_SHAPE_MISMATCH`, naming `op`.
pub fn split_planes<'a>(op: &str, x: &'a Spec, dims: usize) -> Result<(usize, &'a [usize])> {
    if x.dtype != DType::F32 {
        fail!(Dtype, "{op}: takes f32, not {}; convert with to(\"f32\")", x.dtype);
    }
    if !(1..=3).contains(&dims) {
        fail!(ShapeMismatch, "{op}: over {dims} dimensions; there are pools over 1 to 3");
    }
    let Some(first) = x.shape.rank().checked_sub(dims) else {
        fail!(ShapeMismatch, "{op}: over {dims} dimensions of an input of shape {}", x.shape);
    };
    Ok((x.shape[..first].iter().product(), &x.shape[first..]))
}

impl Window {
    /// Returns the windows of x.
    ///
    /// # Errors
    /// The errors of `planes`; `ERR_SHAPE_MISMATCH` and `ERR_OPTION` if a window does not fit.
    pub fn resolve(&self, op: &str, x: &Spec) -> Result<Windows> {
        let (planes, size) = split_planes(op, x, self.kernel.len())?;
        if [&self.stride, &self.padding].iter().any(|given| given.len() != self.kernel.len()) {
            fail!(Option, "{op}: kernel, stride and padding are of unequal lengths");
        }
        let mut out = Vec::new();
        for (d, n) in size.iter().enumerate() {
            let (kernel, stride, padding) = (self.kernel[d], self.stride[d], self.padding[d]);
            if kernel == 0 || stride == 0 || 2 * padding > kernel {
                fail!(
                    Option,
                    "{op}: kernel and stride are at least 1 and padding at most half the kernel, not {kernel}, \
                     {stride} and {padding}"
                );
            }
            let Some(room) = (n + 2 * padding).checked_sub(kernel) else {
                fail!(
                    ShapeMismatch,
                    "{op}: a kernel of {kernel} is larger than the padded input, {} in the last dimensions of \
                     shape {}",
                    n + 2 * padding,
                    x.shape
                );
            };
            let mut count = room / stride + 1;
            if self.ceil {
                count = room.div_ceil(stride) + 1;
                // The last window must start before the trailing padding.
                count -= ((count - 1) * stride >= n + padding) as usize;
            }
            out.push(count);
        }
        Ok(Windows {
            planes,
            size: pad_to_three(size, 1),
            out: pad_to_three(&out, 1),
            kernel: pad_to_three(&self.kernel, 1),
            stride: pad_to_three(&self.stride, 1),
            padding: pad_to_three(&self.padding, 0),
            adaptive: false,
            count_padding: false,
        })
    }
}

/// Returns the shape of y: x's with the last `dims` sizes replaced.
pub fn infer_shape(x: &Shape, windows: &Windows, dims: usize) -> Shape {
    let kept = &x[..x.rank() - dims];
    [kept, &windows.out[3 - dims..]].concat()[..].into()
}

/// Maximum over windows; the second output has the positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPool(pub Window);

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "maxPool"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let windows = self.0.resolve(self.name(), inputs[0])?;
        let y = infer_shape(&inputs[0].shape, &windows, self.0.kernel.len());
        Ok(vec![Spec::f32(y.clone()), Spec { shape: y, dtype: DType::I32 }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let windows = self.0.resolve(self.name(), &inputs[0].spec())?;
        max(cx, &windows, inputs[0], &outputs[0], &outputs[1])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0b10)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let x = &pass.input_specs[0];
        let d_x = cx.empty(x.shape.clone(), DType::F32)?;
        max_backward(cx, &self.0.resolve(self.name(), x)?, pass.d_out(), pass.output(1), &d_x)?;
        Ok(vec![Some(d_x)])
    }
}
