//! y[.., c] = 1 if c is the index, otherwise 0 (torch.nn.functional.one_hot).
//!
//! Shapes: index i32 of any shape; y i32 [.., classes]. Backward: none, since the input is an index.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::elementwise::{Function, map};
use crate::kernels::embedding::check_indices;
use crate::op::{Backward, Gradient, Gradients, Op};

/// The most classes whose numbers f32 represents exactly.
const MOST: usize = 1 << 24;

/// For indices below `classes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneHot {
    pub classes: usize,
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "oneHot"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let index = inputs[0];
        if index.dtype != DType::I32 {
            fail!(Dtype, "oneHot: takes i32, not {}", index.dtype);
        }
        if self.classes > MOST {
            fail!(Option, "oneHot: {} classes are more than {MOST}", self.classes);
        }
        let shape: Vec<usize> = index.shape.iter().copied().chain([self.classes]).collect();
        Ok(vec![Spec { shape: shape[..].into(), dtype: DType::I32 }])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        check_indices(self.name(), inputs[0], self.classes)?;
        let classes = (0..self.classes as i32).flat_map(i32::to_le_bytes).collect();
        let classes = cx.upload([self.classes], DType::I32, classes)?;
        let index = inputs[0].reshape([inputs[0].size(), 1]);
        let y = outputs[0].reshape([index.size(), self.classes]);
        map(cx, Function::Eq, &[&index, &classes], &y)
    }

    fn gradient(&self) -> Gradient {
        Gradient::Constant
    }

    fn backward(&self, _: &Rc<Context>, _: &Backward) -> Result<Gradients> {
        fail!(NoGradient, "oneHot: an index has no gradient")
    }
}
