//! y = x·Wᵀ + b + s·drop(x)·Aᵀ·Bᵀ: a dense layer with a low-rank path beside it.
//!
//! Shapes: x [.., I], W [O, I] ([I, O] where `fan_in_fan_out`), b [O], A [R, I], B [O, R]; y [.., O]
//! and h = drop(x)·Aᵀ [.., R], which backward reads. W may be half-stored.
//! Backward, with Z = s·d·B: d_x = d·W + drop'(Z·A), d_A = Zᵀ·drop(x), d_B = s·dᵀ·h; d_W = dᵀ·x only
//! where W trains. Saved: h, and of the inputs what the wanted gradients read; drop(x) is made again.
//! Several adapters are one: their A's and their scaled B's concatenated along the rank.
//!
//! The low-rank product is added to the finished dense one, so that B = 0 gives `linear`'s bits.
//! Cost over `linear`: 2·T·R·(I + O) forward, twice that backward (LoRAFusion, arXiv 2510.00206).

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::dropout::{check_probability, dropout};
use crate::kernels::gemm::{Gemm, Matrix, gemm};
use crate::op::{Backward, Gradient, Gradients, Op, Reads};
use crate::ops::dropout::Dropout;
use crate::ops::linear::{d_bias, d_dense, d_weight, dense, output};
use crate::shape::Shape;
use crate::tensor::{Context, Spec, Value};

/// A dense layer and its adapter, over [x, weight, A, B] or [x, weight, A, B, bias].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraLinear {
    /// s, what the low-rank product is multiplied by.
    pub scale: f32,
    /// What drops elements of x on the low-rank path; p of 0 for nothing.
    pub dropout: Dropout,
    /// W is stored as [I, O].
    pub fan_in_fan_out: bool,
}

const X: usize = 0;
const WEIGHT: usize = 1;
const A: usize = 2;
const B: usize = 3;
const BIAS: usize = 4;

impl Op for LoraLinear {
    fn name(&self) -> &'static str {
        "lora_linear"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        check_probability(self.name(), self.dropout.p)?;
        let (x, weight, a, b) = (inputs[X], inputs[WEIGHT], inputs[A], inputs[B]);
        let y = output(self.name(), self.fan_in_fan_out, x, weight, inputs.get(BIAS).copied())?;
        if a.dtype != DType::F32 || b.dtype != DType::F32 {
            fail!(Dtype, "lora_linear: the factors are f32, not {a} and {b}");
        }
        let fits = a.shape.rank() == 2
            && b.shape.rank() == 2
            && a.shape[1] == x.shape.last()
            && b.shape[0] == y.last()
            && a.shape[0] == b.shape[1];
        if !fits {
            fail!(
                ShapeMismatch,
                "lora_linear: factors of shapes {} and {} do not fit {} inputs and {} outputs: \
                 A is [rank, inputs], B [outputs, rank]",
                a.shape,
                b.shape,
                x.shape.last(),
                y.last()
            );
        }
        let h = with_last(&y, a.shape[0]);
        Ok(vec![Spec::f32(y), Spec::f32(h)])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        let (x, weight, a, b) = (inputs[X], inputs[WEIGHT], inputs[A], inputs[B]);
        let (y, h) = (&outputs[0], &outputs[1]);
        let (rows, features, out, rank) = (x.shape.rows(), x.shape.last(), y.shape.last(), a.shape[0]);
        let (tall, h_matrix) = (Gemm::new(rows, rank, features), Matrix::new(h, rank));
        let kept = self.kept(cx, x)?;
        gemm(cx, tall, Matrix::new(&kept, features), Matrix::new(a, features).t(), None, h_matrix)?;
        drop(kept);
        dense(cx, self.fan_in_fan_out, x, weight, inputs.get(BIAS).copied(), y)?;
        let wide = Gemm::new(rows, out, rank).alpha(self.scale).accumulate();
        gemm(cx, wide, h_matrix, Matrix::new(b, rank).t(), None, Matrix::new(y, out))
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b1111, 0b10)
    }

    fn reads(&self, needs: &[bool]) -> Reads {
        let inputs =
            [(X, needs[A] || needs[WEIGHT]), (WEIGHT, needs[X]), (A, needs[X]), (B, needs[X] || needs[A])];
        Reads {
            inputs: inputs.iter().map(|(i, read)| (*read as u32) << i).sum(),
            outputs: (needs[B] as u32) << 1,
        }
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let mut d_inputs = vec![None; pass.needs.len()];
        let d = &pass.d_out_or_zeros(cx)?;
        let (rows, out) = (d.shape.rows(), d.shape.last());
        let [rank, features] = [0, 1].map(|i| pass.input_specs[A].shape[i]);
        let d_matrix = Matrix::new(d, out);
        if pass.needs[X] || pass.needs[A] {
            let z = cx.empty([rows, rank], DType::F32)?;
            let z_matrix = Matrix::new(&z, rank);
            let mut tall = Gemm::new(rows, rank, out).alpha(self.scale);
            if let Some(d_h) = &pass.d_outs[1] {
                cx.copy(d_h, &z);
                tall = tall.accumulate();
            }
            gemm(cx, tall, d_matrix, Matrix::new(pass.input(B), rank), None, z_matrix)?;
            if pass.needs[X] {
                let d_x = d_dense(cx, self.fan_in_fan_out, d, pass.input(WEIGHT))?;
                let wide = Gemm::new(rows, features, rank);
                let a = Matrix::new(pass.input(A), features);
                if self.dropout.p == 0.0 {
                    gemm(cx, wide.accumulate(), z_matrix, a, None, Matrix::new(&d_x, features))?;
                } else {
                    let d_kept = cx.empty([rows, features], DType::F32)?;
                    gemm(cx, wide, z_matrix, a, None, Matrix::new(&d_kept, features))?;
                    self.drop_into(cx, &d_kept, &d_x, true)?;
                }
                d_inputs[X] = Some(d_x);
            }
            if pass.needs[A] {
                let (d_a, adds) = pass.into.place(cx, A, [rank, features])?;
                let kept = self.kept(cx, pass.input(X))?;
                let sum = Gemm::new(rank, features, rows).accumulate_if(adds);
                gemm(cx, sum, z_matrix.t(), Matrix::new(&kept, features), None, Matrix::new(&d_a, features))?;
                d_inputs[A] = Some(d_a);
            }
        }
        if pass.needs[B] {
            let (d_b, adds) = pass.into.place(cx, B, [out, rank])?;
            let h = Matrix::new(pass.output(1), rank);
            let sum = Gemm::new(out, rank, rows).alpha(self.scale).accumulate_if(adds);
            gemm(cx, sum, d_matrix.t(), h, None, Matrix::new(&d_b, rank))?;
            d_inputs[B] = Some(d_b);
        }
        if pass.needs[WEIGHT] {
            d_inputs[WEIGHT] = Some(d_weight(cx, self.fan_in_fan_out, d, pass.input(X), &pass.into)?);
        }
        if pass.needs.get(BIAS) == Some(&true) {
            d_inputs[BIAS] = Some(d_bias(cx, d)?);
        }
        Ok(d_inputs)
    }
}

impl LoraLinear {
    /// What the low-rank path takes of x.
    fn kept(&self, cx: &Rc<Context>, x: &Value) -> Result<Value> {
        if self.dropout.p == 0.0 {
            return Ok(x.clone());
        }
        let kept = cx.empty(x.shape.clone(), DType::F32)?;
        self.drop_into(cx, x, &kept, false)?;
        Ok(kept)
    }

    /// Appends y = drop(x), or y += that.
    fn drop_into(&self, cx: &Rc<Context>, x: &Value, y: &Value, accumulate: bool) -> Result<()> {
        let Dropout { p, seed, offset } = self.dropout;
        dropout(cx, seed, offset, p, x, y, accumulate)
    }
}

/// `shape` with another last dimension.
fn with_last(shape: &Shape, last: usize) -> Shape {
    let mut dims = shape.to_vec();
    *dims.last_mut().expect("rank of at least 1") = last;
    Shape::new(&dims)
}
