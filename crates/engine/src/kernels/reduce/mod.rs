//! Reductions of the middle of [outer, n, inner].
//!
//! Maths: y[o, i] = s · Σₙ x[o, n, i], or the maximum or minimum, or its index. x and y are f32, or i32 (sums wrap and
//! have no scale).
//! Layout: row-major. If inner is 1, one workgroup per row: strided lanes, in vectors if rows consist of whole vectors,
//! then through subgroups if available, otherwise a tree in workgroup memory. Otherwise one invocation per column. Long
//! reductions are split into chunks whose partial results are reduced again. The split depends only on the shape, so
//! that the order of summation is fixed (within a subgroup the device determines it). If a binding is too short for a
//! reduction, later windows add to the results of earlier ones.
//! Cost: one pass; an addition for 4 bytes, so bound by memory. The CPU implementation sums 1,024 terms in 32 lanes of f32, and
//! these sums in f64.

mod argmax;
mod native;
mod shader;
#[cfg(test)]
pub(crate) mod tests;

pub use argmax::{arg_extremum, argmax, place_at_index};

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::shader::rows::{ELEMENTS, RowConfig};
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::launch::{Bind, Window, for_each_window};
use crate::scalars;

/// The kind of reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    Sum,
    /// NaN if any element is NaN.
    Max,
    /// NaN if any element is NaN.
    Min,
}

/// The end of the order; at either end NaN precedes all numbers.
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
/// The longest reduction of one row; longer ones are split.
const CHUNK: usize = 16 * 1024;

scalars! {
    /// Rows are [outer, chunks], each with `n` terms of `inner` columns.
    struct Rows {
        n: usize,
        inner: usize,
        rows: usize,
        chunks: usize,
        x_outer: usize,
        x_chunk: usize,
        x_step: usize,
        y_outer: usize,
        y_chunk: usize,
        /// Whether y has no earlier partial result.
        first: bool,
    }
}

impl Rows {
    /// The offset of a row in x.
    fn x_at(&self, row: usize) -> usize {
        row / self.chunks * self.x_outer + row % self.chunks * self.x_chunk
    }

    /// The offset of a row's result in y.
    fn y_at(&self, row: usize) -> usize {
        row / self.chunks * self.y_outer + row % self.chunks * self.y_chunk
    }
}

scalars! {
    struct ReduceScalars { rows: Rows, scale: f32 }
}

/// The variant of a launch.
#[derive(Clone, Copy, Debug)]
enum Config {
    /// One workgroup per row.
    Rows(Reduction, RowConfig),
    /// One invocation per column.
    Columns(Reduction),
    /// For i32.
    Whole { reduction: Reduction, columns: bool },
}

const REDUCTIONS: [Reduction; 3] = [Reduction::Sum, Reduction::Max, Reduction::Min];

impl Config {
    fn params(self) -> Params {
        match self {
            Config::Rows(reduction, config) => [reduction as u32, 0, config.param(), 0],
            Config::Columns(reduction) => [reduction as u32, 1, 0, 0],
            Config::Whole { reduction, columns } => [reduction as u32, columns as u32, 0, 1],
        }
    }

    fn from_params([reduction, columns, config, whole]: Params) -> Config {
        let reduction = REDUCTIONS[reduction as usize];
        match (whole, columns) {
            (0, 0) => Config::Rows(reduction, RowConfig::from_param(config)),
            (0, _) => Config::Columns(reduction),
            _ => Config::Whole { reduction, columns: columns == 1 },
        }
    }

    fn list() -> Vec<Config> {
        let mut all = Vec::new();
        for reduction in REDUCTIONS {
            all.extend(RowConfig::list().map(|config| Config::Rows(reduction, config)));
            all.push(Config::Columns(reduction));
            all.extend([false, true].map(|columns| Config::Whole { reduction, columns }));
        }
        all
    }

    fn dtype(self) -> DType {
        if matches!(self, Config::Whole { .. }) { DType::I32 } else { DType::F32 }
    }
}

static REDUCE: Kernel = Kernel {
    name: "reduce",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite)],
    scalars: ReduceScalars::members,
    implementations: Implementations::Both { wgsl: shader::emit_reduce, native: native::reduce },
    variants: || {
        let make_variant = |config: Config| Variant {
            params: config.params(),
            dtypes: vec![config.dtype(); 2],
            threads: THREADS,
        };
        Config::list().into_iter().map(make_variant).collect()
    },
};

pub const KERNELS: &[&Kernel] = &[&REDUCE, &argmax::ARGMAX, &argmax::ARGMAX_OF_PARTS, &argmax::PLACE];

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
    /// Calls `launch` for each window, with the values' parts in the order x, `others`, ys, and the rows' scalars.
    fn windows(
        &self,
        cx: &Rc<Context>,
        name: &str,
        others: &[&Value],
        ys: &[&Value],
        mut launch: impl FnMut(Window, Rows),
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
        for_each_window(cx, name, &self.space, &[], &binds, |w| {
            let rows = Rows {
                n: w.count[2],
                inner: w.count[3],
                rows: w.count[0] * w.count[1],
                chunks: w.count[1],
                x_outer: self.x_outer,
                x_chunk: n * inner,
                x_step: inner,
                y_outer: self.y_outer,
                y_chunk: inner,
                first: w.start[2] == 0,
            };
            launch(w, rows);
        })
    }
}

/// Returns the plans that split [outer, n, inner] into chunks: first the whole ones, then the remainder. The partial
/// results are [outer, chunks, inner]. `None` if n is small or there are many rows.
fn plan_chunks(x: &Value, [outer, n, inner]: [usize; 3]) -> Option<(usize, Vec<Plan<'_>>)> {
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

/// Like `reduce`, with a sum multiplied by `scale`.
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
    if let Some((chunks, plans)) = plan_chunks(x, [outer, n, inner]) {
        let parts = cx.empty([outer, chunks, inner], x.dtype)?;
        for plan in plans {
            launch(cx, reduction, &plan, 1.0, &parts)?;
        }
        return reduce_scaled(cx, reduction, &parts, [outer, chunks, inner], scale, y);
    }
    let plan =
        Plan { x, x_start: 0, x_outer: n * inner, y_start: 0, y_outer: inner, space: [outer, 1, n, inner] };
    launch(cx, reduction, &plan, scale, y)
}

fn launch(cx: &Rc<Context>, reduction: Reduction, plan: &Plan, scale: f32, y: &Value) -> Result<()> {
    let columns = plan.space[3] > 1;
    plan.windows(cx, "reduce", &[], &[y], |w, rows| {
        let config = match (y.dtype, columns) {
            (DType::I32, columns) => Config::Whole { reduction, columns },
            (_, true) => Config::Columns(reduction),
            (_, false) => Config::Rows(reduction, choose_row_config(cx, &rows, &w)),
        };
        let Rows { n, inner, rows: count, .. } = rows;
        cx.launch(Launch {
            kernel: &REDUCE,
            params: config.params(),
            bindings: w.ranges,
            scalars: ReduceScalars { rows, scale }.words(),
            groups: if columns { (count * inner).div_ceil(THREADS as usize) } else { count } as u32,
            threads: THREADS,
            work: (count * n * inner) as u64,
        });
    })
}

/// Vectors if every row starts at a whole vector.
fn choose_row_config(cx: &Rc<Context>, rows: &Rows, w: &Window) -> RowConfig {
    let mut config = RowConfig::new(&cx.profile, rows.n, w.ranges[..1].iter());
    config.vectors &= [rows.x_outer, rows.x_chunk].iter().all(|step| step.is_multiple_of(ELEMENTS));
    config
}
