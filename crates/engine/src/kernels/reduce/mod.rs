//! Reductions of the middle of [outer, n, inner].
//!
//! Maths: y[o, i] = s · Σₙ x[o, n, i], or s · Σ x², or the maximum or minimum; or the index of one. x and y are f32,
//! or i32 (whose sums wrap and take no scale).
//! Layout: row-major; one workgroup a row where inner is 1 (strided lanes, then a tree in shared
//! memory), one invocation a column elsewhere. Long reductions are cut into chunks whose partial
//! results are reduced again; where is decided by shape alone, so that the order of summation is
//! fixed. Where a binding is too short for a reduction, later windows add to what earlier ones left.
//! Cost: one pass. Native: 32 lanes of f32 over 1,024 terms at a time, their sums in f64.

mod argmax;
mod native;

pub use argmax::{arg_extremum, argmax, place};

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Kernel, Params, Scalar, Twin, Variant, joined, members_of};
use crate::launch::{Bind, Window, windows};
use crate::recording::Launch;
use crate::value::Value;

/// What is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    SumSquares,
    /// NaN where any is NaN.
    Max,
    /// NaN where any is NaN.
    Min,
}

/// Which end of the order, in which NaN comes before all at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    Max,
    Min,
}

impl Extreme {
    pub fn reduction(self) -> Reduction {
        match self {
            Extreme::Max => Reduction::Max,
            Extreme::Min => Reduction::Min,
        }
    }
}

const THREADS: u32 = 64;
/// Longest reduction that one row is given; longer ones are cut.
const CHUNK: usize = 16 * 1024;

/// Rows are [outer, chunks]; `n` terms each, of `inner` columns.
const STRIDES: [Scalar; 10] = [
    Scalar::U32("n"),
    Scalar::U32("inner"),
    Scalar::U32("rows"),
    Scalar::U32("chunks"),
    Scalar::U32("x_outer"),
    Scalar::U32("x_chunk"),
    Scalar::U32("x_step"),
    Scalar::U32("y_outer"),
    Scalar::U32("y_chunk"),
    // 1 where nothing was reduced into y before.
    Scalar::U32("first"),
];

static REDUCE: Kernel = Kernel {
    name: "reduce",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite)],
    scalars: || members_of(&joined::<_, 11>(&STRIDES, &[Scalar::F32("scale")])),
    twin: Twin::Both { wgsl, native: native::reduce },
    variants: || {
        let sums_of_squares = |params: &Params| params[0] == 1 && params[2] == 1;
        (0..4)
            .flat_map(|r| [0, 1].map(|columns| [r, columns]))
            .flat_map(|[r, columns]| [0, 1].map(|whole| [r, columns, whole, 0]))
            .filter(|params| !sums_of_squares(params))
            .map(|params| Variant { params, dtypes: vec![dtype_of(params); 2], threads: THREADS })
            .collect()
    },
};

pub const KERNELS: &[&Kernel] = &[&REDUCE, &argmax::ARGMAX, &argmax::ARGMAX_OF_PARTS, &argmax::PLACE];

fn dtype_of(params: Params) -> DType {
    if params[2] == 1 { DType::I32 } else { DType::F32 }
}

/// `params` = [reduction, 1 where an invocation takes a column and 0 where a workgroup takes a row, 1 for i32].
fn wgsl(params: Params) -> String {
    let rows = if params[1] == 1 { include_str!("columns.wgsl") } else { include_str!("rows.wgsl") };
    if dtype_of(params) == DType::I32 {
        let (combine, start) = match params[0] {
            0 => ("a + b", "0"),
            2 => ("max(a, b)", "-2147483647 - 1"),
            _ => ("min(a, b)", "2147483647"),
        };
        return format!(
            "alias Element = i32;\nfn combine(a: i32, b: i32) -> i32 {{ return {combine}; }}\n\
             fn element(i: u32) -> i32 {{ return load_x(i); }}\nfn start() -> i32 {{ return {start}; }}\n\
             fn settle(at: u32, v: i32) {{ if p.first == 1u {{ store_y(at, v); }} \
             else {{ store_y(at, combine(load_y(at), v)); }} }}\n{rows}"
        );
    }
    let combine = match params[0] {
        0 | 1 => "return a + b;",
        2 => "if is_nan(a) || is_nan(b) { return nan(); } return max(a, b);",
        _ => "if is_nan(a) || is_nan(b) { return nan(); } return min(a, b);",
    };
    let start = match params[0] {
        0 | 1 => "0.0",
        2 => "bitcast<f32>(0xff800000u + p.groups - p.groups)",
        _ => "bitcast<f32>(0x7f800000u + p.groups - p.groups)",
    };
    let element = if params[0] == 1 { "let v = load_x(i); return v * v;" } else { "return load_x(i);" };
    let settle = "if p.first == 1u { store_y(at, p.scale * v); } else { store_y(at, combine(load_y(at), p.scale * v)); }";
    let head = format!(
        "alias Element = f32;\nfn combine(a: f32, b: f32) -> f32 {{ {combine} }}\nfn element(i: u32) -> f32 {{ {element} }}\n\
         fn start() -> f32 {{ return {start}; }}\nfn settle(at: u32, v: f32) {{ {settle} }}\n"
    );
    head + rows
}

/// A reduction of part of x into part of y: rows [outer, chunks] of `n` terms.
struct Plan<'a> {
    x: &'a Value,
    x_start: usize,
    x_outer: usize,
    y_start: usize,
    y_outer: usize,
    /// outer, chunks, n, inner.
    space: [usize; 4],
}

impl Plan<'_> {
    /// Calls `launch` with each window, the values' parts in the order x, `others`, ys, and the
    /// scalars that `STRIDES` names.
    fn windows(
        &self,
        cx: &Rc<Context>,
        name: &str,
        others: &[&Value],
        ys: &[&Value],
        mut launch: impl FnMut(Window, SmallVec<[u32; 24]>),
    ) -> Result<()> {
        let [outer, chunks, n, inner] = self.space;
        let x_strides = [self.x_outer, n * inner, inner, 1];
        let y_strides = [self.y_outer, inner, 0, 1];
        let part = |v: &Value, start: usize, strides: [usize; 4]| {
            let size = (outer - 1) * strides[0] + (chunks - 1) * strides[1] + (n - 1) * strides[2] + inner;
            v.sub_range(start, [size])
        };
        if self.space.contains(&0) {
            return Ok(());
        }
        let xs: SmallVec<[Value; 2]> =
            [&[self.x], others].concat().iter().map(|v| part(v, self.x_start, x_strides)).collect();
        let ys: SmallVec<[Value; 2]> = ys.iter().map(|v| part(v, self.y_start, y_strides)).collect();
        let binds: SmallVec<[Bind; 4]> = xs
            .iter()
            .map(|v| Bind::new(v, &x_strides, 1))
            .chain(ys.iter().map(|v| Bind::new(v, &y_strides, 1)))
            .collect();
        windows(cx, name, &self.space, &[], &binds, |w| {
            let [rows, chunks] = [w.count[0] * w.count[1], w.count[1]];
            let scalars = [
                w.count[2],
                w.count[3],
                rows,
                chunks,
                self.x_outer,
                n * inner,
                inner,
                self.y_outer,
                inner,
                (w.start[2] == 0) as usize,
            ];
            launch(w, scalars.iter().map(|v| *v as u32).collect());
        })
    }
}

/// The plans that cut [outer, n, inner] into chunks: whole ones, then what is left over. The
/// partial results are [outer, chunks, inner]; `None` where n is short or the rows are many.
fn chunked(x: &Value, [outer, n, inner]: [usize; 3]) -> Option<(usize, Vec<Plan<'_>>)> {
    if n <= CHUNK || outer * inner >= 1024 {
        return None;
    }
    let (whole, tail) = (n / CHUNK, n % CHUNK);
    let chunks = whole + (tail > 0) as usize;
    let plan = |from: usize, space| Plan {
        x,
        x_start: from * CHUNK * inner,
        x_outer: n * inner,
        y_start: from * inner,
        y_outer: chunks * inner,
        space,
    };
    let mut plans = vec![plan(0, [outer, whole, CHUNK, inner])];
    if tail > 0 {
        plans.push(plan(whole, [outer, 1, tail, inner]));
    }
    Some((chunks, plans))
}

/// Appends y[outer, inner] = the reduction of x seen as [outer, n, inner]; both are f32 or both i32.
pub fn reduce(cx: &Rc<Context>, reduction: Reduction, x: &Value, space: [usize; 3], y: &Value) -> Result<()> {
    reduce_scaled(cx, reduction, x, space, 1.0, y)
}

/// `reduce`, a sum times `scale`.
pub fn reduce_scaled(
    cx: &Rc<Context>,
    reduction: Reduction,
    x: &Value,
    [outer, n, inner]: [usize; 3],
    scale: f32,
    y: &Value,
) -> Result<()> {
    debug_assert_eq!(x.size(), outer * n * inner);
    if n == 0 {
        cx.zero(y);
        return Ok(());
    }
    if let Some((chunks, plans)) = chunked(x, [outer, n, inner]) {
        let parts = cx.empty([outer, chunks, inner], x.dtype)?;
        for plan in plans {
            launch(cx, reduction, &plan, 1.0, &parts)?;
        }
        let again = if reduction == Reduction::SumSquares { Reduction::Sum } else { reduction };
        return reduce_scaled(cx, again, &parts, [outer, chunks, inner], scale, y);
    }
    let plan =
        Plan { x, x_start: 0, x_outer: n * inner, y_start: 0, y_outer: inner, space: [outer, 1, n, inner] };
    launch(cx, reduction, &plan, scale, y)
}

fn launch(cx: &Rc<Context>, reduction: Reduction, plan: &Plan, scale: f32, y: &Value) -> Result<()> {
    let columns = plan.space[3] > 1;
    plan.windows(cx, "reduce", &[], &[y], |w, mut scalars| {
        let (rows, n, inner) = (scalars[2], scalars[0], scalars[1]);
        scalars.push(scale.to_bits());
        cx.launch(Launch {
            kernel: &REDUCE,
            params: [reduction as u32, columns as u32, (y.dtype == DType::I32) as u32, 0],
            bindings: w.ranges,
            scalars,
            groups: if columns { (rows * inner).div_ceil(THREADS) } else { rows },
            threads: THREADS,
            work: rows as u64 * n as u64 * inner as u64,
        });
    })
}
