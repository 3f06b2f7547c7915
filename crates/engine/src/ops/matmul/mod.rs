//! y = a·b over broadcast leading dimensions, each operand transposed if its flag is set.
//!
//! Shapes: a [.., M, K] (or [.., K, M] transposed), b [.., K, N] (or [.., N, K]), y [.., M, N]; the leading dimensions
//! broadcast as in NumPy. b may be frozen f16 or bf16.
//! Backward: d_a = d·bᵀ and d_b = aᵀ·d, summed over an operand's broadcast dimensions. Saved: each operand if the other
//! needs a gradient.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::gemm::{Gemm, Matrix, gemm};
use crate::op::{Backward, BackwardReads, Gradient, Gradients, Op};
use crate::ops::sum::sum_to;
use crate::shape::Shape;

/// The product of matrices of at least two dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matmul {
    pub trans_a: bool,
    pub trans_b: bool,
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Result<Vec<Spec>> {
        let [a, b] = inputs else { unreachable!("two inputs") };
        if a.shape.rank() < 2 || b.shape.rank() < 2 {
            fail!(
                ShapeMismatch,
                "matmul: takes at least two dimensions each, got shapes {} and {}",
                a.shape,
                b.shape
            );
        }
        if a.dtype != DType::F32 || !b.dtype.is_float() || (self.trans_a && b.dtype != DType::F32) {
            fail!(Dtype, "matmul: takes f32 operands, not {a} and {b}; convert with to(\"f32\")");
        }
        let (m, k) = matrix_size(&a.shape, self.trans_a);
        let (k_b, n) = matrix_size(&b.shape, self.trans_b);
        if k != k_b {
            fail!(
                ShapeMismatch,
                "matmul: shapes {}{} and {}{} do not fit: the first has {k} columns, the second {k_b} rows",
                a.shape,
                if self.trans_a { " (transposed)" } else { "" },
                b.shape,
                if self.trans_b { " (transposed)" } else { "" }
            );
        }
        let mut dims =
            Shape::broadcast("matmul", &leading_shape(&a.shape), &leading_shape(&b.shape))?.to_vec();
        dims.extend([m, n]);
        Ok(vec![Spec::f32(&dims[..])])
    }

    fn forward(&self, cx: &Rc<Context>, inputs: &[&Value], outputs: &[Value]) -> Result<()> {
        multiply(cx, inputs[0], self.trans_a, inputs[1], self.trans_b, &outputs[0])
    }

    fn gradient(&self) -> Gradient {
        Gradient::reads(0b11, 0)
    }

    fn reads(&self, needs: &[bool]) -> BackwardReads {
        BackwardReads::of_product(needs)
    }

    fn backward(&self, cx: &Rc<Context>, pass: &Backward) -> Result<Gradients> {
        let d = pass.d_out();
        let (trans_a, trans_b) = (self.trans_a, self.trans_b);
        let d_a = || {
            let (b, shape) = (pass.input(1), &pass.input_specs[0].shape);
            if trans_a {
                append_gradient(cx, b, trans_b, d, true, shape)
            } else {
                append_gradient(cx, d, false, b, !trans_b, shape)
            }
        };
        let d_b = || {
            let (a, shape) = (pass.input(0), &pass.input_specs[1].shape);
            if !trans_a && leading_shape(shape).size() == 1 {
                // With one b for all, the batch's rows form one long sum.
                let a = &a.reshape([a.shape.rows(), a.shape.last()]);
                let d = &d.reshape([d.shape.rows(), d.shape.last()]);
                if a.shape[0] == d.shape[0] {
                    return if trans_b {
                        append_gradient(cx, d, true, a, false, shape)
                    } else {
                        append_gradient(cx, a, true, d, false, shape)
                    };
                }
            }
            if trans_b {
                append_gradient(cx, d, true, a, trans_a, shape)
            } else {
                append_gradient(cx, a, !trans_a, d, false, shape)
            }
        };
        Ok(vec![pass.needs[0].then(d_a).transpose()?, pass.needs[1].then(d_b).transpose()?])
    }
}

/// Returns x·y over their common batch, summed to `shape`.
fn append_gradient(
    cx: &Rc<Context>,
    x: &Value,
    trans_x: bool,
    y: &Value,
    trans_y: bool,
    shape: &Shape,
) -> Result<Value> {
    let mut dims = Shape::broadcast("matmul", &leading_shape(&x.shape), &leading_shape(&y.shape))?.to_vec();
    dims.extend([matrix_size(&x.shape, trans_x).0, matrix_size(&y.shape, trans_y).1]);
    let d = cx.empty(&dims[..], DType::F32)?;
    multiply(cx, x, trans_x, y, trans_y, &d)?;
    if d.size() == shape.size() {
        return Ok(d.reshape(shape.clone()));
    }
    sum_to(cx, d, shape)
}

/// Appends c = a·b over c's leading dimensions, to which a's and b's broadcast.
fn multiply(cx: &Rc<Context>, a: &Value, trans_a: bool, b: &Value, trans_b: bool, c: &Value) -> Result<()> {
    let (m, k) = matrix_size(&a.shape, trans_a);
    let n = c.shape.last();
    let dims =
        fold_batch(&leading_shape(&c.shape), [(&a.shape, m * k), (&b.shape, k * n), (&c.shape, m * n)]);
    let (columns_a, columns_b) = (a.shape.last(), b.shape.last());
    let (&(size, [a_step, b_step, c_step]), outer) = dims.split_last().expect("at least one");
    // Batch rows that share b become rows of one product.
    let folds = b_step == 0 && !trans_a && a_step == m * k && c_step == m * n;
    let product = if folds { Gemm::new(size * m, n, k) } else { Gemm::new(m, n, k).batch(size) };
    let mut offsets = vec![[0; 3]];
    for (size, steps) in outer {
        let step = |p: [usize; 3], i: usize| std::array::from_fn(|o| p[o] + i * steps[o]);
        offsets = offsets.iter().flat_map(|p| (0..*size).map(move |i| step(*p, i))).collect();
    }
    for offset in offsets {
        let skip_to = |v: &Value, at: usize| v.sub_range(at, [v.size() - at]);
        let (a, b, c) = (skip_to(a, offset[0]), skip_to(b, offset[1]), skip_to(c, offset[2]));
        gemm(
            cx,
            product,
            Matrix::new(&a, columns_a).transposed_if(trans_a).with_batch_stride(a_step),
            Matrix::new(&b, columns_b).transposed_if(trans_b).with_batch_stride(b_step),
            None,
            Matrix::new(&c, n).with_batch_stride(c_step),
        )?;
    }
    Ok(())
}

/// The numbers of rows and columns of a matrix, transposed with `trans`.
fn matrix_size(shape: &Shape, trans: bool) -> (usize, usize) {
    let (rows, columns) = (shape[shape.rank() - 2], shape.last());
    if trans { (columns, rows) } else { (rows, columns) }
}

/// The dimensions before the matrix.
fn leading_shape(shape: &Shape) -> Shape {
    Shape::new(&shape[..shape.rank() - 2])
}

/// The batch dimensions, with neighbours merged if all operands are contiguous across them: their sizes and each
/// operand's strides in elements, 0 where it broadcasts. At least one.
fn fold_batch(dims: &Shape, operands: [(&Shape, usize); 3]) -> SmallVec<[(usize, [usize; 3]); 4]> {
    let steps: [SmallVec<[usize; 6]>; 3] = operands.map(|(shape, matrix)| {
        let own = leading_shape(shape);
        let strides = own.strides();
        (0..dims.rank())
            .map(|d| match (d + own.rank()).checked_sub(dims.rank()) {
                Some(i) if own[i] != 1 => strides[i] * matrix,
                _ => 0,
            })
            .collect()
    });
    let mut out: SmallVec<[(usize, [usize; 3]); 4]> = SmallVec::new();
    for d in (0..dims.rank()).filter(|d| dims[*d] != 1) {
        let step: [usize; 3] = std::array::from_fn(|o| steps[o][d]);
        match out.last_mut() {
            Some((size, last)) if (0..3).all(|o| last[o] == step[o] * dims[d]) => {
                *size *= dims[d];
                *last = step;
            }
            _ => out.push((dims[d], step)),
        }
    }
    if out.is_empty() {
        out.push((1, operands.map(|(_, matrix)| matrix)));
    }
    out
}
