//! What a product is told: its sizes, how its operands lie, and how they are rounded.

use crate::context::Value;

/// How the factors of a product are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are stored.
    #[default]
    Exact,
    /// By a bf16 weight the other factor is rounded to bf16, too, on the processor and where there are
    /// more than 8 rows; sums are f32 all the same. So are both factors of attention's products where the
    /// processor multiplies pairs of bf16. Elsewhere as `Exact`.
    Bf16,
    /// On a GPU that computes in f16, large products by a weight that is not in blocks round both factors to f16, their
    /// lines scaled by powers of two; sums are f32 (in_f16). Elsewhere as `Exact`.
    F16,
}

/// Sizes of a product, and what becomes of it.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Scales the product, not the bias.
    pub alpha: f32,
    /// C += instead of C =.
    pub accumulate: bool,
    pub precision: Precision,
}

impl Gemm {
    /// C = A·B for one matrix each.
    pub fn new(m: usize, n: usize, k: usize) -> Gemm {
        Gemm { batch: 1, m, n, k, alpha: 1.0, accumulate: false, precision: Precision::Exact }
    }

    pub fn batch(self, batch: usize) -> Gemm {
        Gemm { batch, ..self }
    }

    pub fn alpha(self, alpha: f32) -> Gemm {
        Gemm { alpha, ..self }
    }

    pub fn precision(self, precision: Precision) -> Gemm {
        Gemm { precision, ..self }
    }

    /// C += A·B.
    pub fn accumulate(self) -> Gemm {
        self.accumulate_if(true)
    }

    pub fn accumulate_if(self, accumulate: bool) -> Gemm {
        Gemm { accumulate, ..self }
    }
}

/// How an operand lies in its value, in elements.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub value: &'a Value,
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
    /// From one matrix of the batch to the next; 0 where all share one.
    pub batch: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, `columns` wide; one matrix for the whole batch.
    pub fn new(value: &'a Value, columns: usize) -> Matrix<'a> {
        Matrix { value, row: columns, column: 1, batch: 0 }
    }

    /// The transpose of this.
    pub fn t(self) -> Matrix<'a> {
        Matrix { row: self.column, column: self.row, ..self }
    }

    /// Transposed where `on`.
    pub fn transposed_if(self, on: bool) -> Matrix<'a> {
        if on { self.t() } else { self }
    }

    /// With `stride` elements between the matrices of the batch.
    pub fn batched(self, stride: usize) -> Matrix<'a> {
        Matrix { batch: stride, ..self }
    }
}

/// A second part of a product's sum, C += α·A·B over `k` terms of its own, for one matrix. It is added
/// after the product, bias included, is stored: its bits are those of two products one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub a: Matrix<'a>,
    pub b: Matrix<'a>,
    pub k: usize,
    pub alpha: f32,
}
