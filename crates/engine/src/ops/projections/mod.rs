//! h_i = x·A_iᵀ: what the low-rank paths of several layers take of the input that they share.
//!
//! Shapes: x [.., I], A_i [R_i, I], h_i [T, R_i] with T the rows of x. There is no gradient: a `lora_linear`
//! that is given its h makes those of x and of A. On a GPU in software two or three are one launch.

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::gemm::{Gemm, Matrix, gemm, project_together};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::tensor::{Context, Spec, Value};

/// Inputs: x, then A of each path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projections;

impl Op for Projections {
    fn name(&self) -> &'static str {
        "projections"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let x = inputs[0];
        if inputs.iter().any(|input| input.dtype != DType::F32) || x.shape.rank() == 0 {
            fail!(Dtype, "projections: takes f32 of one dimension or more, not {x}");
        }
        let project = |a: &&Spec| {
            if a.shape.rank() != 2 || a.shape[1] != x.shape.last() {
                fail!(
                    ShapeMismatch,
                    "projections: a factor {a} does not fit an input {x}: A is [rank, inputs]"
                );
            }
            Ok(Spec::f32([x.shape.rows(), a.shape[0]]))
        };
        inputs[1..].iter().map(project).collect()
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (x, factors) = (inputs[0], &inputs[1..]);
        if project_together(cx, x, factors, outputs) {
            return Ok(());
        }
        let features = x.shape.last();
        for (a, h) in factors.iter().zip(outputs) {
            let rank = a.shape[0];
            let (x, a, c) = (Matrix::new(x, features), Matrix::new(a, features).t(), Matrix::new(h, rank));
            gemm(cx, Gemm::new(h.shape[0], rank, features), x, a, None, c)?;
        }
        Ok(())
    }

    fn gradient(&self) -> Gradient {
        Gradient::Constant
    }

    fn backward(&self, _: &Rc<Context>, _: &Backward) -> Result<Gradients> {
        fail!(NoGradient, "projections: the layers that are given them make the gradients")
    }
}
