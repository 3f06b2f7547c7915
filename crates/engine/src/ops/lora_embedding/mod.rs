//! y[.., :] = W[id[..], :] + s·Aᵀ[id[..], :]·Bᵀ: rows of a table and of its low-rank update.
//!
//! Shapes: W [V, C], f32 or frozen f16 and bf16; ids i32 of any shape; A [R, V], B [C, R]; y [.., C], and h = Aᵀ[id]
//! [.., R], a second output for backward. Backward, with Z = s·d·B: d_A sums the rows of Z with equal id, d_B = s·dᵀ·h,
//! d_W sums the rows of d with equal id; the row `padding_idx` gets 0. Saved: the ids, B if A trains, h if B trains.
//! Source: loralib's Embedding.
//!
//! The low-rank product is added to the gathered rows, so that A = 0 gives the bits of `embedding`, and y needs one
//! pass less than a sum of two results.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::gemm::{Gemm, Matrix, gemm};
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};
use crate::ops::embedding::Embedding;

/// Inputs: W, ids, A, B.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoraEmbedding {
    pub scale: f32,
    /// The row of W and of A that gets no gradient.
    pub padding_idx: Option<u32>,
}

const WEIGHT: usize = 0;
const IDS: usize = 1;
const A: usize = 2;
const B: usize = 3;

impl LoraEmbedding {
    fn base(&self) -> Embedding {
        Embedding { padding_idx: self.padding_idx, transposed: false }
    }

    fn low_rank(&self) -> Embedding {
        Embedding { padding_idx: self.padding_idx, transposed: true }
    }
}

impl Op for LoraEmbedding {
    fn name(&self) -> &'static str {
        "lora_embedding"
    }

    fn in_blocks(&self) -> u32 {
        1 << WEIGHT
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [weight, ids, a, b] = inputs else { unreachable!("four inputs") };
        if a.dtype != DType::F32 || b.dtype != DType::F32 {
            fail!(Dtype, "lora_embedding: the factors are f32, not {a} and {b}");
        }
        let mut outputs = self.base().outputs(&[weight, ids])?;
        let fits = a.shape.rank() == 2
            && a.shape[1] == weight.shape[0]
            && b.shape[..] == [weight.shape[1], a.shape[0]];
        if !fits {
            fail!(
                ShapeMismatch,
                "lora_embedding: factors of shapes {} and {} do not fit a table {}: A is [rank, rows], \
                 B [columns, rank]",
                a.shape,
                b.shape,
                weight.shape
            );
        }
        outputs.extend(self.low_rank().outputs(&[a, ids])?);
        Ok(outputs)
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let [weight, ids, a, b] = inputs else { unreachable!("four inputs") };
        let [y, h] = outputs else { unreachable!("two outputs") };
        self.low_rank().forward(cx, &[a, ids], std::slice::from_ref(h))?;
        self.base().forward(cx, &[weight, ids], std::slice::from_ref(y))?;
        let (columns, rank) = (y.shape.last(), h.shape.last());
        let wide = Gemm::new(ids.size(), columns, rank).alpha(self.scale).accumulate();
        gemm(cx, wide, Matrix::new(h, rank), Matrix::new(b, rank).t(), None, Matrix::new(y, columns))
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(1 << IDS | 1 << B, 0b10)
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        BackwardReads { inputs: 1 << IDS | (needs[A] as u32) << B, outputs: (needs[B] as u32) << 1 }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let mut d_inputs = vec![None; 4];
        let d = &pass.d_out_or_zeros(cx)?;
        let (rows, columns, rank) = (d.shape.rows(), d.shape.last(), pass.input_specs[A].shape[0]);
        let d_matrix = Matrix::new(d, columns);
        // The gradient of a table of either layout from the gradient of its gathered rows.
        let scatter_gradient = |op: Embedding, input: usize, d: &Value| {
            let table = Backward {
                inputs: vec![None, Some(pass.input(IDS).clone())],
                input_specs: vec![pass.input_specs[input].clone(), pass.input_specs[IDS].clone()],
                needs: vec![true, false],
                d_outs: vec![Some(d.clone())],
                ..Backward::default()
            };
            Ok(op.backward(cx, &table)?.swap_remove(0))
        };
        if pass.needs[A] {
            let z = cx.empty(pass.output_specs[1].shape.clone(), DType::F32)?;
            let mut tall = Gemm::new(rows, rank, columns).alpha(self.scale);
            if let Some(d_h) = &pass.d_outs[1] {
                cx.copy(d_h, &z);
                tall = tall.accumulate();
            }
            gemm(cx, tall, d_matrix, Matrix::new(pass.input(B), rank), None, Matrix::new(&z, rank))?;
            d_inputs[A] = scatter_gradient(self.low_rank(), A, &z)?;
        }
        if pass.needs[B] {
            let (d_b, adds) = pass.into.choose_destination(cx, B, [columns, rank])?;
            let h = Matrix::new(pass.output(1), rank);
            let sum = Gemm::new(columns, rank, rows).alpha(self.scale).accumulate_if(adds);
            gemm(cx, sum, d_matrix.t(), h, None, Matrix::new(&d_b, rank))?;
            d_inputs[B] = Some(d_b);
        }
        if pass.needs[WEIGHT] {
            d_inputs[WEIGHT] = scatter_gradient(self.base(), WEIGHT, d)?;
        }
        Ok(d_inputs)
    }
}
