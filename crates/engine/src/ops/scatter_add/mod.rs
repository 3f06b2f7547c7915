//! y = x with y[.., index[.., k, ..], ..] += src[.., k, ..] along one dimension, in the order of k (torch.scatter_add).
//!
//! Shapes: x, index and src have equal rank; index is no larger than src and, except along the dimension, than x; y is
//! x's. Backward: d_out for x; for src d_out at the index, 0 beyond it. Saved: the index. An index outside the
//! dimension adds nothing if the host does not know it.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy};
use crate::kernels::embedding::check_indices;
use crate::kernels::gather::add_at;
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op, run1};
use crate::ops::gather::Gather;
use crate::ops::sum::split_around;
use crate::shape::Shape;

/// Along `dim`. Inputs: x, index, src.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterAdd {
    pub dim: usize,
}

/// Returns the leading part of `whole` with shape `shape`: all of it, or a copy.
fn copy_corner(cx: &Rc<Context>, whole: &Value, shape: &Shape) -> Result<Value> {
    if whole.shape == *shape {
        return Ok(whole.clone());
    }
    let part = cx.empty(shape.clone(), whole.dtype)?;
    let from = Side { value: whole, start: 0, strides: whole.shape.strides() };
    copy(cx, "scatterAdd", shape, &from, &Side::whole(&part))?;
    Ok(part)
}

/// Writes `part` over the leading part of `whole`.
fn put_back(cx: &Rc<Context>, part: &Value, whole: &Value) -> Result<()> {
    let to = Side { value: whole, start: 0, strides: whole.shape.strides() };
    copy(cx, "scatterAdd", &part.shape, &Side::whole(part), &to)
}

impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatterAdd"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [x, index, src] = inputs else { unreachable!("three inputs") };
        if x.dtype != DType::F32 || src.dtype != DType::F32 || index.dtype != DType::I32 {
            fail!(Dtype, "scatterAdd: takes f32, an i32 index and f32, not {x}, {index} and {src}");
        }
        let rank = x.shape.rank();
        let fits = self.dim < rank
            && index.shape.rank() == rank
            && src.shape.rank() == rank
            && (0..rank)
                .all(|d| index.shape[d] <= src.shape[d] && (d == self.dim || index.shape[d] <= x.shape[d]));
        if !fits || (x.shape[self.dim] == 0 && index.shape.size() > 0) {
            fail!(
                ShapeMismatch,
                "scatterAdd: an index {} does not fit {} into {} along dimension {}",
                index.shape,
                src.shape,
                x.shape,
                self.dim
            );
        }
        Ok(vec![Spec::f32(x.shape.clone())])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let ([x, index, src], y) = (inputs, &outputs[0]) else { unreachable!("three inputs") };
        check_indices(self.name(), index, x.shape[self.dim])?;
        cx.copy(x, y);
        let src = copy_corner(cx, src, &index.shape)?;
        let mut reached = index.shape.to_vec();
        reached[self.dim] = x.shape[self.dim];
        let part = copy_corner(cx, y, &Shape::new(&reached))?;
        let [outer, n, inner] = split_around(&part.shape, Some(self.dim));
        add_at(cx, &part, index, &src, [outer, n, index.shape[self.dim], inner])?;
        if part.shape == y.shape { Ok(()) } else { put_back(cx, &part, y) }
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b10, 0)
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        BackwardReads { inputs: if needs[2] { 0b10 } else { 0 }, outputs: 0 }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let mut d_inputs = vec![pass.needs[0].then(|| d.clone()), None, None];
        if pass.needs[2] {
            let part = run1(cx, &Gather { dim: self.dim }, &[d, pass.input(1)])?;
            let shape = &pass.input_specs[2].shape;
            d_inputs[2] = Some(if part.shape == *shape {
                part
            } else {
                let d_src = cx.empty(shape.clone(), DType::F32)?;
                cx.zero(&d_src);
                put_back(cx, &part, &d_src)?;
                d_src
            });
        }
        Ok(d_inputs)
    }
}
