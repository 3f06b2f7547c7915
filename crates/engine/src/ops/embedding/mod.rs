//! y[.., :] = W[id[..], :], rows of a table by token id.
//!
//! Shapes: W [V, C], f32 or frozen f16, bf16 and blocks; ids i32 of any shape; y [.., C] f32. With `transposed` W is
//! [C, V] and its columns are used, as for A of an embedding's adapter. Backward: the rows of d_out with equal id are
//! summed into its row of d_W, in ascending order; the row `padding_idx` gets 0. Saved: the ids.

#[cfg(test)]
pub(in crate::ops) mod reference;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::embedding::{TableLayout, look_up, scatter};
use crate::op::{Backward, Gradient, Gradients, Op};
use crate::shape::Shape;

/// Inputs: W, ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Embedding {
    /// The row that gets no gradient.
    pub padding_idx: Option<u32>,
    /// Whether W is [C, V].
    pub transposed: bool,
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn in_blocks(&self) -> u32 {
        !self.transposed as u32
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [weight, ids] = inputs else { unreachable!("two inputs") };
        if weight.shape.rank() != 2 {
            fail!(ShapeMismatch, "embedding: the weight is a table [V, C], not {}", weight.shape);
        }
        if !weight.dtype.is_weight() || ids.dtype != DType::I32 {
            fail!(Dtype, "embedding: takes a float weight and i32 ids, not {weight} and {ids}");
        }
        let table = TableLayout::new(&weight.shape, self.transposed);
        if table.vocabulary == 0 && ids.shape.size() > 0 {
            fail!(ShapeMismatch, "embedding: the weight {} has no rows for ids {}", weight.shape, ids.shape);
        }
        if let Some(padding) = self.padding_idx.filter(|p| *p as usize >= table.vocabulary) {
            fail!(Index, "embedding: padding index {padding} is outside 0..{}", table.vocabulary);
        }
        let shape: Vec<usize> = ids.shape.iter().copied().chain([table.columns]).collect();
        Ok(vec![Spec::f32(Shape::new(&shape))])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let table = TableLayout::new(&inputs[0].shape, self.transposed);
        look_up(cx, self.name(), inputs[0], table, inputs[1], &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b10, 0)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let shape = &pass.input_specs[0].shape;
        let d_weight = cx.empty(shape.clone(), DType::F32)?;
        let table = TableLayout::new(shape, self.transposed);
        scatter(cx, self.name(), d, pass.input(1), self.padding_idx, &d_weight, table)?;
        Ok(vec![Some(d_weight), None])
    }
}
