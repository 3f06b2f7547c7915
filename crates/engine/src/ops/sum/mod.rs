//! y = Σ x over one dimension, or over all.
//!
//! Shapes: x any, f32 or i32 (sums wrap); y without the dimension, or a scalar. Backward: d_out broadcast over the
//! dimension. Saved: nothing.

#[cfg(test)]
pub mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::reduce::{Reduction, reduce};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::Shape;

/// Sum over `dim`, or over every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    pub dim: Option<usize>,
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        if inputs[0].dtype == DType::I32 {
            let shape = remove_dim(self.name(), &inputs[0].shape, self.dim)?;
            return Ok(vec![Spec { shape, dtype: DType::I32 }]);
        }
        Ok(vec![infer_reduced_spec(self.name(), inputs[0], self.dim)?])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let x = inputs[0];
        reduce(cx, Reduction::Sum, x, split_around(&x.shape, self.dim), &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        Ok(vec![Some(broadcast_along(cx, d, &pass.input_specs[0].shape, self.dim)?)])
    }
}

/// Returns the output of an f32 reduction over `dim` by `op`.
///
/// # Errors
/// `ERR_DTYPE`, and `ERR_SHAPE_MISMATCH` if there is no such dimension.
pub fn infer_reduced_spec(op: &str, x: &Spec, dim: Option<usize>) -> Result<Spec> {
    if x.dtype != DType::F32 {
        fail!(Dtype, "{op}: takes f32, not {}; convert with to(\"f32\")", x.dtype);
    }
    Ok(Spec::f32(remove_dim(op, &x.shape, dim)?))
}

/// Returns d broadcast along `dim` of `shape`, or over all of it.
pub fn broadcast_along(cx: &Rc<Context>, d: &Value, shape: &Shape, dim: Option<usize>) -> Result<Value> {
    let mut kept = shape.to_vec();
    match dim {
        Some(dim) => kept[dim] = 1,
        None => kept.fill(1),
    }
    let d_x = cx.empty(shape.clone(), DType::F32)?;
    map(cx, Function::Copy, &[&d.reshape(&kept[..])], &d_x)?;
    Ok(d_x)
}

/// Returns `shape` without `dim`; a scalar's shape for `None`.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` if there is no such dimension.
pub fn remove_dim(op: &str, shape: &Shape, dim: Option<usize>) -> Result<Shape> {
    let Some(dim) = dim else { return Ok(Shape::new(&[])) };
    if dim >= shape.rank() {
        fail!(ShapeMismatch, "{op}: there is no dimension {dim} in shape {shape}");
    }
    let mut dims = shape.to_vec();
    dims.remove(dim);
    Ok(Shape::new(&dims))
}

/// Returns `shape` as [outer, n, inner] around `dim`; for `None` all elements are n.
pub fn split_around(shape: &Shape, dim: Option<usize>) -> [usize; 3] {
    match dim {
        Some(d) => [shape[..d].iter().product(), shape[d], shape[d + 1..].iter().product()],
        None => [1, shape.size(), 1],
    }
}

/// Sums `d` over the dimensions along which `shape` was broadcast, so that the result has that shape.
pub fn sum_to(cx: &Rc<Context>, d: Value, shape: &Shape) -> Result<Value> {
    if d.shape == *shape {
        return Ok(d);
    }
    let rank = d.shape.rank();
    let own = |k: usize| (k + shape.rank()).checked_sub(rank).map_or(1, |i| shape[i]);
    let mut d = d;
    let mut k = 0;
    while k < rank {
        // Neighbouring broadcast dimensions are summed in one pass.
        let end = (k..rank).find(|e| own(*e) == d.shape[*e]).unwrap_or(rank);
        if end == k {
            k += 1;
            continue;
        }
        let n: usize = d.shape[k..end].iter().product();
        if n != 1 {
            let mut dims = d.shape.to_vec();
            let (outer, inner) = (dims[..k].iter().product(), dims[end..].iter().product());
            dims[k..end].fill(1);
            let y = cx.empty(&dims[..], DType::F32)?;
            reduce(cx, Reduction::Sum, &d, [outer, n, inner], &y)?;
            d = y;
        }
        k = end;
    }
    Ok(d.reshape(shape.clone()))
}
