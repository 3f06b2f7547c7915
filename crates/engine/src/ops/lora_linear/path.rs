//! One low-rank path: its rows, its outputs, and its products.

use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use crate::context::{Context, Spec, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::dropout::dropout;
use crate::kernels::gemm::{Gemm, Matrix, Segment, gemm};
use crate::ops::dropout::Dropout;
use crate::shape::Shape;

/// s·drop(x)[rows]·Aᵀ·Bᵀ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// s, the scale of the product.
    pub scale: f32,
    /// Dropout of x; none if p is 0.
    pub dropout: Dropout,
    /// The rows to use, in ascending order; empty for all.
    pub row_ranges: Vec<RowRange>,
    /// The first output of each window; empty for one window of all outputs.
    pub windows: Vec<usize>,
}

/// A range of rows of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRange {
    pub start: usize,
    pub count: usize,
    /// The stream of its dropout mask, which replaces the path's.
    pub stream: u64,
}

impl Path {
    /// A path over all rows and outputs.
    pub fn whole(scale: f32, dropout: Dropout) -> Path {
        Path { scale, dropout, ..Path::default() }
    }

    /// s·h·Bᵀ as a segment of the dense product, if it covers all rows and outputs.
    pub(super) fn expansion_segment<'a>(&self, h: &'a Value, b: &'a Value) -> Option<Segment<'a>> {
        let rank = b.shape[1];
        let (h, b) = (Matrix::new(h, rank), Matrix::new(b, rank).t());
        self.is_whole().then_some(Segment { a: h, b, k: rank, alpha: self.scale })
    }

    /// Z·A as a segment of d·W, if it covers all rows and outputs, and there is no dropout.
    pub(super) fn contraction_segment<'a>(&self, z: &'a Value, a: &'a Value) -> Option<Segment<'a>> {
        let [rank, features] = [a.shape[0], a.shape[1]];
        let (z, a) = (Matrix::new(z, rank), Matrix::new(a, features));
        (self.is_whole() && self.dropout.p == 0.0).then_some(Segment { a: z, b: a, k: rank, alpha: 1.0 })
    }

    pub(super) fn is_whole(&self) -> bool {
        self.row_ranges.is_empty() && self.windows.is_empty()
    }

    fn groups(&self) -> usize {
        self.windows.len().max(1)
    }

    /// Returns the shape of h.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` and `ERR_DTYPE`, with the factors.
    pub(super) fn infer_h_spec(&self, x: &Spec, a: &Spec, b: &Spec, y: &Shape) -> Result<Spec> {
        if a.dtype != DType::F32 || b.dtype != DType::F32 {
            fail!(Dtype, "lora_linear: the factors are f32, not {a} and {b}");
        }
        let (groups, features, out) = (self.groups(), x.shape.last(), y.last());
        let fits = a.shape.rank() == 2
            && b.shape.rank() == 2
            && a.shape[1] == features
            && a.shape[0] == groups * b.shape[1]
            && b.shape[0].is_multiple_of(groups)
            && match &self.windows[..] {
                [] => b.shape[0] == out,
                windows => windows.iter().all(|start| start + b.shape[0] / groups <= out),
            };
        if !fits {
            fail!(
                ShapeMismatch,
                "lora_linear: factors of shapes {} and {} do not fit {features} inputs and {out} outputs{}: \
                 A is [rank, inputs], B [outputs, rank]",
                a.shape,
                b.shape,
                if groups > 1 { format!(" in {groups} windows") } else { String::new() },
            );
        }
        let rows = x.shape.rows();
        let mut free = 0;
        for range in &self.row_ranges {
            if range.start < free || range.start + range.count > rows {
                fail!(ShapeMismatch, "lora_linear: row ranges {:?} do not fit {rows} rows", self.row_ranges);
            }
            free = range.start + range.count;
        }
        Ok(Spec::f32([self.row_ranges(rows).iter().map(|range| range.count).sum(), a.shape[0]]))
    }

    pub(super) fn row_ranges(&self, rows: usize) -> SmallVec<[RowRange; 1]> {
        if self.row_ranges.is_empty() {
            return smallvec![RowRange { start: 0, count: rows, stream: self.dropout.offset }];
        }
        SmallVec::from_slice(&self.row_ranges)
    }
}

/// A path for an input of known size.
pub(super) struct SizedPath<'a> {
    path: &'a Path,
    /// Each range with its first row in h.
    row_ranges: SmallVec<[(RowRange, usize); 1]>,
}

impl<'a> SizedPath<'a> {
    pub(super) fn new(path: &'a Path, rows: usize) -> SizedPath<'a> {
        let mut packed = 0;
        let row_ranges = path.row_ranges(rows).into_iter().map(|range| {
            packed += range.count;
            (range, packed - range.count)
        });
        SizedPath { path, row_ranges: row_ranges.collect() }
    }

    /// The number of rows of h.
    pub(super) fn rows(&self) -> usize {
        self.row_ranges.iter().map(|(range, _)| range.count).sum()
    }

    /// h = drop(x)[rows]·Aᵀ.
    pub(super) fn project(&self, cx: &Rc<Context>, x: &Value, a: &Value, h: &Value) -> Result<()> {
        let (features, rank) = (a.shape[1], a.shape[0]);
        for (range, packed) in &self.row_ranges {
            let kept = self.drop_rows(cx, x, range)?;
            let h = slice_rows(h, *packed, range.count);
            let g = Gemm::new(range.count, rank, features);
            gemm(
                cx,
                g,
                Matrix::new(&kept, features),
                Matrix::new(a, features).t(),
                None,
                Matrix::new(&h, rank),
            )?;
        }
        Ok(())
    }

    /// y[rows, window] += s·h[:, group]·B[group]ᵀ for every window.
    pub(super) fn expand(&self, cx: &Rc<Context>, h: &Value, b: &Value, y: &Value) -> Result<()> {
        self.for_each_overlap(h, b, y, |g| {
            let sum = Gemm::new(g.rows, g.width, g.rank).alpha(self.path.scale).accumulate();
            gemm(cx, sum, g.h.matrix(), g.b.matrix().t(), None, g.y.matrix())
        })
    }

    /// Returns Z = s·d[rows, window]·B[group] + d_h; `d_h` is the gradient of the output h.
    pub(super) fn append_d_h(
        &self,
        cx: &Rc<Context>,
        d: &Value,
        b: &Value,
        h: &Spec,
        d_h: &Option<Value>,
    ) -> Result<Value> {
        let z = cx.empty(h.shape.clone(), DType::F32)?;
        if let Some(d_h) = d_h {
            cx.copy(d_h, &z);
        }
        self.for_each_overlap(&z, b, d, |g| {
            let sum = Gemm::new(g.rows, g.rank, g.width).alpha(self.path.scale).accumulate_if(d_h.is_some());
            gemm(cx, sum, g.y.matrix(), g.b.matrix(), None, g.h.matrix())
        })?;
        Ok(z)
    }

    /// d_x[rows] += drop'(Z·A).
    pub(super) fn add_d_x(&self, cx: &Rc<Context>, z: &Value, a: &Value, d_x: &Value) -> Result<()> {
        let (features, rank) = (a.shape[1], a.shape[0]);
        for (range, packed) in &self.row_ranges {
            let z = slice_rows(z, *packed, range.count);
            let (z, a) = (Matrix::new(&z, rank), Matrix::new(a, features));
            let d_x = slice_rows(d_x, range.start, range.count);
            let g = Gemm::new(range.count, features, rank);
            if self.path.dropout.p == 0.0 {
                gemm(cx, g.accumulate(), z, a, None, Matrix::new(&d_x, features))?;
            } else {
                let d_kept = cx.empty([range.count, features], DType::F32)?;
                gemm(cx, g, z, a, None, Matrix::new(&d_kept, features))?;
                self.drop_into(cx, range, &d_kept, &d_x, true)?;
            }
        }
        Ok(())
    }

    /// d_a = Zᵀ·drop(x), or d_a += that.
    pub(super) fn append_d_a(
        &self,
        cx: &Rc<Context>,
        z: &Value,
        x: &Value,
        d_a: &Value,
        adds: bool,
    ) -> Result<()> {
        let (rank, features) = (d_a.shape[0], d_a.shape[1]);
        for (i, (range, packed)) in self.row_ranges.iter().enumerate() {
            let kept = self.drop_rows(cx, x, range)?;
            let z = slice_rows(z, *packed, range.count);
            let sum = Gemm::new(rank, features, range.count).accumulate_if(adds || i > 0);
            let (z, kept) = (Matrix::new(&z, rank).t(), Matrix::new(&kept, features));
            gemm(cx, sum, z, kept, None, Matrix::new(d_a, features))?;
        }
        Ok(())
    }

    /// d_b[group] = s·d[rows, window]ᵀ·h[:, group], or d_b += that.
    pub(super) fn append_d_b(
        &self,
        cx: &Rc<Context>,
        d: &Value,
        h: &Value,
        d_b: &Value,
        adds: bool,
    ) -> Result<()> {
        self.for_each_overlap(h, d_b, d, |g| {
            let sum = Gemm::new(g.width, g.rank, g.rows);
            let sum = sum.alpha(self.path.scale).accumulate_if(adds || g.range > 0);
            gemm(cx, sum, g.y.matrix().t(), g.h.matrix(), None, g.b.matrix())
        })
    }

    /// Returns drop(x) for the rows in a range.
    fn drop_rows(&self, cx: &Rc<Context>, x: &Value, range: &RowRange) -> Result<Value> {
        let x = slice_rows(x, range.start, range.count);
        if self.path.dropout.p == 0.0 {
            return Ok(x);
        }
        let kept = cx.empty(x.shape.clone(), DType::F32)?;
        self.drop_into(cx, range, &x, &kept, false)?;
        Ok(kept)
    }

    /// Appends y = drop(x), or y += that.
    fn drop_into(
        &self,
        cx: &Rc<Context>,
        range: &RowRange,
        x: &Value,
        y: &Value,
        accumulate: bool,
    ) -> Result<()> {
        let Dropout { p, seed, .. } = self.path.dropout;
        dropout(cx, seed, range.stream, p, x, y, accumulate)
    }

    /// Calls `product` for every range and window, with their blocks of h, B and y.
    fn for_each_overlap(
        &self,
        h: &Value,
        b: &Value,
        y: &Value,
        mut product: impl FnMut(Overlap) -> Result<()>,
    ) -> Result<()> {
        let groups = self.path.groups();
        let (rank, width) = (b.shape[1], b.shape[0] / groups);
        for (i, (range, packed)) in self.row_ranges.iter().enumerate() {
            for group in 0..groups {
                let window = self.path.windows.get(group).copied().unwrap_or(0);
                product(Overlap {
                    range: i,
                    rows: range.count,
                    rank,
                    width,
                    h: Submatrix::new(h, [*packed, group * rank], [range.count, rank]),
                    b: Submatrix::new(b, [group * width, 0], [width, rank]),
                    y: Submatrix::new(y, [range.start, window], [range.count, width]),
                })?;
            }
        }
        Ok(())
    }
}

/// A range of rows and a window of outputs.
struct Overlap {
    range: usize,
    rows: usize,
    rank: usize,
    width: usize,
    h: Submatrix,
    b: Submatrix,
    y: Submatrix,
}

/// A block of a row-major value.
struct Submatrix {
    value: Value,
    /// The row stride, in elements.
    stride: usize,
}

impl Submatrix {
    fn new(value: &Value, [row, column]: [usize; 2], [rows, columns]: [usize; 2]) -> Submatrix {
        let stride = value.shape.last();
        let size = if rows * columns == 0 { 0 } else { (rows - 1) * stride + columns };
        Submatrix { value: value.sub_range(row * stride + column, [size]), stride }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.value, self.stride)
    }
}

/// Returns `count` rows of a row-major value.
fn slice_rows(value: &Value, start: usize, count: usize) -> Value {
    let width = value.shape.last();
    value.sub_range(start * width, [count, width])
}
