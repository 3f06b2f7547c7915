//! One low-rank path: which rows it takes, which outputs it gives, and its products.

use std::rc::Rc;

use smallvec::{SmallVec, smallvec};

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernels::dropout::dropout;
use crate::kernels::gemm::{Gemm, Matrix, Segment, gemm};
use crate::ops::dropout::Dropout;
use crate::shape::Shape;
use crate::value::{Spec, Value};

/// s·drop(x)[rows]·Aᵀ·Bᵀ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// s, what the product is multiplied by.
    pub scale: f32,
    /// What drops elements of x; p of 0 for nothing.
    pub dropout: Dropout,
    /// Rows that it takes, in ascending order; none named for all.
    pub runs: Vec<Run>,
    /// Where each window of outputs starts; none named for one of all.
    pub windows: Vec<usize>,
}

/// Neighbouring rows of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub start: usize,
    pub count: usize,
    /// The stream of its dropout mask, in the place of the path's.
    pub stream: u64,
}

impl Path {
    /// Over all rows and outputs.
    pub fn whole(scale: f32, dropout: Dropout) -> Path {
        Path { scale, dropout, ..Path::default() }
    }

    /// s·h·Bᵀ as a segment of the dense product, where it goes over all rows and outputs.
    pub(super) fn expansion<'a>(&self, h: &'a Value, b: &'a Value) -> Option<Segment<'a>> {
        let rank = b.shape[1];
        let (h, b) = (Matrix::new(h, rank), Matrix::new(b, rank).t());
        self.is_whole().then_some(Segment { a: h, b, k: rank, alpha: self.scale })
    }

    /// Z·A as a segment of d·W, where it goes over all rows and outputs, and nothing is dropped.
    pub(super) fn contraction<'a>(&self, z: &'a Value, a: &'a Value) -> Option<Segment<'a>> {
        let [rank, features] = [a.shape[0], a.shape[1]];
        let (z, a) = (Matrix::new(z, rank), Matrix::new(a, features));
        (self.is_whole() && self.dropout.p == 0.0).then_some(Segment { a: z, b: a, k: rank, alpha: 1.0 })
    }

    pub(super) fn is_whole(&self) -> bool {
        self.runs.is_empty() && self.windows.is_empty()
    }

    fn groups(&self) -> usize {
        self.windows.len().max(1)
    }

    /// The shape of h.
    ///
    /// # Errors
    /// `ERR_SHAPE_MISMATCH` and `ERR_DTYPE`, showing the factors.
    pub(super) fn output(&self, x: &Spec, a: &Spec, b: &Spec, y: &Shape) -> Result<Spec> {
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
        for run in &self.runs {
            if run.start < free || run.start + run.count > rows {
                fail!(ShapeMismatch, "lora_linear: runs {:?} do not fit {rows} rows", self.runs);
            }
            free = run.start + run.count;
        }
        Ok(Spec::f32([self.placed_runs(rows).iter().map(|run| run.count).sum(), a.shape[0]]))
    }

    pub(super) fn placed_runs(&self, rows: usize) -> SmallVec<[Run; 1]> {
        if self.runs.is_empty() {
            return smallvec![Run { start: 0, count: rows, stream: self.dropout.offset }];
        }
        SmallVec::from_slice(&self.runs)
    }
}

/// A path over an input of known size.
pub(super) struct Placed<'a> {
    path: &'a Path,
    /// With the row of h where each starts.
    runs: SmallVec<[(Run, usize); 1]>,
}

impl<'a> Placed<'a> {
    pub(super) fn new(path: &'a Path, rows: usize) -> Placed<'a> {
        let mut packed = 0;
        let runs = path.placed_runs(rows).into_iter().map(|run| {
            packed += run.count;
            (run, packed - run.count)
        });
        Placed { path, runs: runs.collect() }
    }

    /// Rows of h.
    pub(super) fn rows(&self) -> usize {
        self.runs.iter().map(|(run, _)| run.count).sum()
    }

    /// h = drop(x)[rows]·Aᵀ.
    pub(super) fn project(&self, cx: &Rc<Context>, x: &Value, a: &Value, h: &Value) -> Result<()> {
        let (features, rank) = (a.shape[1], a.shape[0]);
        for (run, packed) in &self.runs {
            let kept = self.kept(cx, x, run)?;
            let h = rows(h, *packed, run.count);
            let g = Gemm::new(run.count, rank, features);
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
        self.each(h, b, y, |g| {
            let sum = Gemm::new(g.rows, g.width, g.rank).alpha(self.path.scale).accumulate();
            gemm(cx, sum, g.h.matrix(), g.b.matrix().t(), None, g.y.matrix())
        })
    }

    /// Z = s·d[rows, window]·B[group], with what flows into h by itself.
    pub(super) fn d_h(
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
        self.each(&z, b, d, |g| {
            let sum = Gemm::new(g.rows, g.rank, g.width).alpha(self.path.scale).accumulate_if(d_h.is_some());
            gemm(cx, sum, g.y.matrix(), g.b.matrix(), None, g.h.matrix())
        })?;
        Ok(z)
    }

    /// d_x[rows] += drop'(Z·A).
    pub(super) fn add_d_x(&self, cx: &Rc<Context>, z: &Value, a: &Value, d_x: &Value) -> Result<()> {
        let (features, rank) = (a.shape[1], a.shape[0]);
        for (run, packed) in &self.runs {
            let z = rows(z, *packed, run.count);
            let (z, a) = (Matrix::new(&z, rank), Matrix::new(a, features));
            let d_x = rows(d_x, run.start, run.count);
            let g = Gemm::new(run.count, features, rank);
            if self.path.dropout.p == 0.0 {
                gemm(cx, g.accumulate(), z, a, None, Matrix::new(&d_x, features))?;
            } else {
                let d_kept = cx.empty([run.count, features], DType::F32)?;
                gemm(cx, g, z, a, None, Matrix::new(&d_kept, features))?;
                self.drop_into(cx, run, &d_kept, &d_x, true)?;
            }
        }
        Ok(())
    }

    /// d_a = Zᵀ·drop(x), or d_a += that.
    pub(super) fn d_a(&self, cx: &Rc<Context>, z: &Value, x: &Value, d_a: &Value, adds: bool) -> Result<()> {
        let (rank, features) = (d_a.shape[0], d_a.shape[1]);
        for (i, (run, packed)) in self.runs.iter().enumerate() {
            let kept = self.kept(cx, x, run)?;
            let z = rows(z, *packed, run.count);
            let sum = Gemm::new(rank, features, run.count).accumulate_if(adds || i > 0);
            let (z, kept) = (Matrix::new(&z, rank).t(), Matrix::new(&kept, features));
            gemm(cx, sum, z, kept, None, Matrix::new(d_a, features))?;
        }
        Ok(())
    }

    /// d_b[group] = s·d[rows, window]ᵀ·h[:, group], or d_b += that.
    pub(super) fn d_b(&self, cx: &Rc<Context>, d: &Value, h: &Value, d_b: &Value, adds: bool) -> Result<()> {
        self.each(h, d_b, d, |g| {
            let sum = Gemm::new(g.width, g.rank, g.rows);
            let sum = sum.alpha(self.path.scale).accumulate_if(adds || g.run > 0);
            gemm(cx, sum, g.y.matrix().t(), g.h.matrix(), None, g.b.matrix())
        })
    }

    /// What the path takes of x in a run.
    fn kept(&self, cx: &Rc<Context>, x: &Value, run: &Run) -> Result<Value> {
        let x = rows(x, run.start, run.count);
        if self.path.dropout.p == 0.0 {
            return Ok(x);
        }
        let kept = cx.empty(x.shape.clone(), DType::F32)?;
        self.drop_into(cx, run, &x, &kept, false)?;
        Ok(kept)
    }

    /// Appends y = drop(x), or y += that.
    fn drop_into(&self, cx: &Rc<Context>, run: &Run, x: &Value, y: &Value, accumulate: bool) -> Result<()> {
        let Dropout { p, seed, .. } = self.path.dropout;
        dropout(cx, seed, run.stream, p, x, y, accumulate)
    }

    /// Calls `product` for every run and window, with the blocks of h, B and y that meet there.
    fn each(
        &self,
        h: &Value,
        b: &Value,
        y: &Value,
        mut product: impl FnMut(Meeting) -> Result<()>,
    ) -> Result<()> {
        let groups = self.path.groups();
        let (rank, width) = (b.shape[1], b.shape[0] / groups);
        for (i, (run, packed)) in self.runs.iter().enumerate() {
            for group in 0..groups {
                let window = self.path.windows.get(group).copied().unwrap_or(0);
                product(Meeting {
                    run: i,
                    rows: run.count,
                    rank,
                    width,
                    h: Block::of(h, [*packed, group * rank], [run.count, rank]),
                    b: Block::of(b, [group * width, 0], [width, rank]),
                    y: Block::of(y, [run.start, window], [run.count, width]),
                })?;
            }
        }
        Ok(())
    }
}

/// A run of rows and a window of outputs.
struct Meeting {
    run: usize,
    rows: usize,
    rank: usize,
    width: usize,
    h: Block,
    b: Block,
    y: Block,
}

/// A block of a row-major value.
struct Block {
    value: Value,
    /// Elements from one row to the next.
    stride: usize,
}

impl Block {
    fn of(value: &Value, [row, column]: [usize; 2], [rows, columns]: [usize; 2]) -> Block {
        let stride = value.shape.last();
        let size = if rows * columns == 0 { 0 } else { (rows - 1) * stride + columns };
        Block { value: value.sub_range(row * stride + column, [size]), stride }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.value, self.stride)
    }
}

/// `count` rows of a row-major value.
fn rows(value: &Value, start: usize, count: usize) -> Value {
    let width = value.shape.last();
    value.sub_range(start * width, [count, width])
}
