//! y = the inputs, concatenated along one dimension.
//!
//! Backward: slices of d_out. Saved: nothing.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::error::Result;
use crate::fail;
use crate::kernels::copy::{Side, copy, with_f32_copies};
use crate::op::{Backward, Gradient, Gradients, Op, run1};
use crate::ops::slice::Slice;
use crate::shape::Shape;

/// Along `dim`; at least one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    pub dim: usize,
}

impl Concat {
    /// The host's copy of y, if it knows all inputs.
    fn concat_host(&self, inputs: &[&Value]) -> Option<Rc<[i32]>> {
        let parts: Vec<(Rc<[i32]>, usize)> = inputs
            .iter()
            .map(|x| Some((x.host()?, x.shape[self.dim..].iter().product())))
            .collect::<Option<_>>()?;
        let outer: usize = inputs[0].shape[..self.dim].iter().product();
        let rows = (0..outer).flat_map(|o| parts.iter().flat_map(move |(x, n)| &x[o * n..(o + 1) * n]));
        Some(rows.copied().collect())
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [first, rest @ ..] = inputs else { fail!(ShapeMismatch, "concat: takes one tensor at least") };
        if self.dim >= first.shape.rank() {
            fail!(ShapeMismatch, "concat: there is no dimension {} in shape {}", self.dim, first.shape);
        }
        let mut shape = first.shape.to_vec();
        for x in rest {
            let fits = x.shape.rank() == shape.len()
                && (0..shape.len()).all(|d| d == self.dim || x.shape[d] == shape[d]);
            if !fits {
                fail!(
                    ShapeMismatch,
                    "concat: shapes {} and {} differ in more than dimension {}",
                    first.shape,
                    x.shape,
                    self.dim
                );
            }
            if x.dtype != first.dtype {
                fail!(Dtype, "concat: {} and {} do not go together; convert one", first.dtype, x.dtype);
            }
            shape[self.dim] += x.shape[self.dim];
        }
        Ok(vec![Spec { shape: Shape::new(&shape), dtype: first.dtype }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        *outputs[0].storage.host.borrow_mut() = self.concat_host(inputs);
        with_f32_copies(cx, inputs, &outputs[0], |inputs, y| {
            let strides = y.shape.strides();
            let mut at = 0;
            for x in inputs {
                let part = Side { value: y, start: at * strides[self.dim], strides: strides.clone() };
                copy(cx, self.name(), &x.shape, &Side::whole(x), &part)?;
                at += x.shape[self.dim];
            }
            Ok(())
        })
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let mut end = 0;
        let parts = pass.input_specs.iter().zip(&pass.needs).map(|(x, needed)| {
            let start = end;
            end += x.shape[self.dim];
            needed.then(|| run1(cx, &Slice { dim: self.dim, start, end }, &[d])).transpose()
        });
        parts.collect()
    }
}
