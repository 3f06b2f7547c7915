//! Reductions of the middle of [outer, n, inner].
//!
//! Maths: y[o, i] = Σₙ x[o, n, i], or the maximum, or its index, or Σ x². Layout: row-major; one
//! workgroup a row where inner is 1 (strided lanes, then a tree in shared memory), one invocation a
//! column elsewhere. Long reductions are cut into chunks whose partial results are reduced again;
//! where is decided by shape alone, so that the order of summation is fixed. Cost: one pass.

mod cpu;

use std::rc::Rc;

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Kernel, Params, Scalar, Variant};
use crate::launch::{Bind, windows};
use crate::recording::Launch;
use crate::tensor::{Context, Value};

/// What is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    SumSquares,
    Max,
    /// The first index of the maximum; NaN counts as largest, as in PyTorch.
    ArgMax,
}

const THREADS: u32 = 64;
/// Longest reduction that one row is given; longer ones are cut.
const CHUNK: usize = 16 * 1024;

static REDUCE: Kernel = Kernel {
    name: "reduce",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite)],
    scalars: &[
        Scalar::U32("n"),
        Scalar::U32("inner"),
        Scalar::U32("rows"),
        Scalar::U32("row_stride"),
        Scalar::U32("inner_stride"),
        Scalar::U32("y_stride"),
        Scalar::U32("first"),
        Scalar::U32("begin"),
    ],
    wgsl,
    cpu: cpu::reduce,
    variants: || {
        (0..4)
            .flat_map(|r| {
                let y = if r == Reduction::ArgMax as u32 { DType::I32 } else { DType::F32 };
                [0, 1].map(|columns| Variant {
                    params: [r, columns, 0, 0],
                    dtypes: vec![DType::F32, y],
                    threads: THREADS,
                })
            })
            .collect()
    },
};

pub const KERNELS: &[&Kernel] = &[&REDUCE];

/// `params` = [reduction, 1 where an invocation takes a column and 0 where a workgroup takes a row].
fn wgsl(params: Params) -> String {
    let combine = match params[0] {
        0 | 1 => "return a + b;",
        _ => "if is_nan(a) || is_nan(b) { return nan(); } return max(a, b);",
    };
    let start = if params[0] < 2 { "0.0" } else { "bitcast<f32>(0xff800000u + p.groups - p.groups)" };
    let element = if params[0] == 1 { "let v = load_x(i); return v * v;" } else { "return load_x(i);" };
    let head = format!(
        "fn combine(a: f32, b: f32) -> f32 {{ {combine} }}\nfn element(i: u32) -> f32 {{ {element} }}\n\
         fn start() -> f32 {{ return {start}; }}\n\
         fn beats(v: f32, best: f32) -> bool {{ if is_nan(best) {{ return false; }} return is_nan(v) || v > best; }}\n"
    );
    head + match (params[0], params[1]) {
        (3, 1) => include_str!("argmax_columns.wgsl"),
        (3, _) => include_str!("argmax_rows.wgsl"),
        (_, 1) => include_str!("columns.wgsl"),
        (_, _) => include_str!("rows.wgsl"),
    }
}

/// Appends y[outer, inner] = the reduction of x seen as [outer, n, inner].
pub fn reduce(
    cx: &Rc<Context>,
    reduction: Reduction,
    x: &Value,
    [outer, n, inner]: [usize; 3],
    y: &Value,
) -> Result<()> {
    debug_assert_eq!(x.size(), outer * n * inner);
    if reduction != Reduction::ArgMax && n > CHUNK && outer * inner < 1024 {
        let chunks = n / CHUNK;
        let tail = n - chunks * CHUNK;
        // Whole chunks first, then what is left over as a part of its own.
        let parts = cx.empty([outer, chunks + (tail > 0) as usize, inner], DType::F32)?;
        let pieces = chunks + (tail > 0) as usize;
        for o in 0..outer {
            launch(
                cx,
                reduction,
                x,
                o * n * inner,
                [chunks, CHUNK, inner],
                &parts,
                o * pieces * inner,
                inner,
            )?;
            if tail > 0 {
                let from = (o * n + chunks * CHUNK) * inner;
                launch(
                    cx,
                    reduction,
                    x,
                    from,
                    [1, tail, inner],
                    &parts,
                    (o * pieces + chunks) * inner,
                    inner,
                )?;
            }
        }
        let again = if reduction == Reduction::SumSquares { Reduction::Sum } else { reduction };
        return reduce(cx, again, &parts, [outer, pieces, inner], y);
    }
    launch(cx, reduction, x, 0, [outer, n, inner], y, 0, inner)
}

#[allow(clippy::too_many_arguments)]
fn launch(
    cx: &Rc<Context>,
    reduction: Reduction,
    x: &Value,
    x_start: usize,
    [outer, n, inner]: [usize; 3],
    y: &Value,
    y_start: usize,
    y_stride: usize,
) -> Result<()> {
    let x = x.sub_range(x_start, [outer * n * inner]);
    let y = y.sub_range(y_start, [outer * inner]);
    let binds = [Bind::new(&x, &[n * inner, inner, 1], 1), Bind::new(&y, &[y_stride, 0, 1], 1)];
    let columns = inner > 1;
    windows(cx, "reduce", &[outer, n, inner], &[], &binds, |w| {
        let (rows, count, width) = (w.count[0], w.count[1], w.count[2]);
        let groups = if columns { (rows * width).div_ceil(THREADS as usize) } else { rows };
        cx.launch(Launch {
            kernel: &REDUCE,
            params: [reduction as u32, columns as u32, 0, 0],
            bindings: w.ranges,
            scalars: SmallVec::from_slice(
                &[count, width, rows, n * inner, inner, y_stride, (w.start[1] == 0) as usize, w.start[1]]
                    .map(|v| v as u32),
            ),
            groups: groups as u32,
            threads: THREADS,
            work: (rows * count * width) as u64,
        });
    })
}
