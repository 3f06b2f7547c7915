//! y[.., k, ..] = x[.., index[.., k, ..], ..] along one dimension.
//!
//! Shapes: x and index have equal rank; in every other dimension index is no larger than x; y is f32 of index's shape,
//! or i32 if x is. Backward: d_out added at the gathered positions, in the order of k. Saved: the index.

#[cfg(test)]
mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy};
use crate::kernels::embedding::check_indices;
use crate::kernels::gather::{gather, scatter_add};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::ops::sum::split_around;
use crate::shape::Shape;

/// Along `dim`. Inputs: x, index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    pub dim: usize,
}

impl Gather {
    /// The shape of the part of x that the index can reach: index's shape, but all of `dim`.
    fn reachable_shape(&self, x: &Shape, index: &Shape) -> Shape {
        let mut shape = index.to_vec();
        shape[self.dim] = x[self.dim];
        Shape::new(&shape)
    }

    /// [outer, n, k, inner] of the reached part and the index.
    fn fold_dims(&self, reached: &Shape, index: &Shape) -> [usize; 4] {
        let [outer, n, inner] = split_around(reached, Some(self.dim));
        [outer, n, index[self.dim], inner]
    }
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [x, index] = inputs else { unreachable!("two inputs") };
        if index.dtype != DType::I32 {
            fail!(Dtype, "gather: takes an i32 index, not {index}");
        }
        let fits = self.dim < x.shape.rank()
            && index.shape.rank() == x.shape.rank()
            && (0..x.shape.rank()).all(|d| d == self.dim || index.shape[d] <= x.shape[d]);
        if !fits || (x.shape[self.dim] == 0 && index.shape.size() > 0) {
            fail!(
                ShapeMismatch,
                "gather: an index {} does not fit {} along dimension {}",
                index.shape,
                x.shape,
                self.dim
            );
        }
        let dtype = if x.dtype == DType::I32 { DType::I32 } else { DType::F32 };
        Ok(vec![Spec { shape: index.shape.clone(), dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let [x, index] = inputs else { unreachable!("two inputs") };
        check_indices(self.name(), index, x.shape[self.dim])?;
        let reached = self.reachable_shape(&x.shape, &index.shape);
        let dims = self.fold_dims(&reached, &index.shape);
        if reached == x.shape {
            return gather(cx, x, index, &outputs[0], dims);
        }
        let wide = crate::op::run1(cx, &crate::ops::cast::Cast { dtype: outputs[0].dtype }, &[x])?;
        let part = cx.empty(reached.clone(), outputs[0].dtype)?;
        let from = Side { value: &wide, start: 0, strides: x.shape.strides() };
        copy(cx, self.name(), &reached, &from, &Side::whole(&part))?;
        gather(cx, &part, index, &outputs[0], dims)
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b10, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let (shape, index) = (&pass.input_specs[0].shape, pass.input(1));
        let reached = self.reachable_shape(shape, &index.shape);
        let part = cx.empty(reached.clone(), DType::F32)?;
        scatter_add(cx, &part, index, d, self.fold_dims(&reached, &index.shape))?;
        if reached == *shape {
            return Ok(vec![Some(part), None]);
        }
        let d_x = cx.empty(shape.clone(), DType::F32)?;
        cx.zero(&d_x);
        let to = Side { value: &d_x, start: 0, strides: shape.strides() };
        copy(cx, self.name(), &reached, &Side::whole(&part), &to)?;
        Ok(vec![Some(d_x), None])
    }
}
