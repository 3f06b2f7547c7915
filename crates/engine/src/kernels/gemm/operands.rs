//! The arguments of a product: sizes, strides and rounding.

use crate::context::Value;

/// The precision of a product's factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As stored.
    #[default]
    Exact,
    /// Products by a bf16 weight round the other factor to bf16, on the CPU and for more than 8 rows; sums stay f32.
    /// Attention rounds both factors where the CPU multiplies pairs of bf16. Otherwise as `Exact`.
    Bf16,
    /// On a GPU with f16, large products by a weight that is not in blocks round both factors to f16, whose lines are
    /// scaled by powers of two; sums stay f32 (in_f16). Otherwise as `Exact`.
    F16,
}

/// The sizes of a product and its epilogue.
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// Scale of the product; it does not apply to the bias.
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

/// The strides of an operand in its value, in elements.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub value: &'a Value,
    /// The stride from row to row.
    pub row: usize,
    /// The stride from column to column.
    pub column: usize,
    /// The stride from matrix to matrix; 0 if the batch shares one.
    pub batch: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, `columns` wide; one matrix for the whole batch.
    pub fn new(value: &'a Value, columns: usize) -> Matrix<'a> {
        Matrix { value, row: columns, column: 1, batch: 0 }
    }

    /// The transpose.
    pub fn t(self) -> Matrix<'a> {
        Matrix { row: self.column, column: self.row, ..self }
    }

    /// The transpose if `on`.
    pub fn transposed_if(self, on: bool) -> Matrix<'a> {
        if on { self.t() } else { self }
    }

    /// A batch of matrices with a stride of `stride` elements.
    pub fn with_batch_stride(self, stride: usize) -> Matrix<'a> {
        Matrix { batch: stride, ..self }
    }
}

/// A second segment of a product's sum: C += α·A·B over `k` terms, for one matrix. It is added after the product, bias
/// included, is stored, so the result is bit-identical to two consecutive products.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub a: Matrix<'a>,
    pub b: Matrix<'a>,
    pub k: usize,
    pub alpha: f32,
}
