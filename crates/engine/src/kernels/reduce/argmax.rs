//! The index of the maximum or minimum, and its inverse: values at indices, 0 elsewhere.

use std::rc::Rc;

use super::{Extreme, Plan, Rows, THREADS, native, plan_chunks};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

scalars! {
    /// `begin`: the index of the window's first element.
    pub(super) struct ArgmaxScalars { rows: Rows, begin: usize }
}
scalars! {
    pub(super) struct PlaceScalars {
        rows: usize,
        n: usize,
        inner: usize,
        y_outer: usize,
        y_step: usize,
        begin: usize,
    }
}

pub static ARGMAX: Kernel = Kernel {
    name: "argmax",
    bindings: &[("x", Access::Read), ("value", Access::ReadWrite), ("y", Access::ReadWrite)],
    scalars: ArgmaxScalars::members,
    // All chunks have equal size but the last, which has a separate launch.
    implementations: Implementations::Both {
        wgsl: |params| emit_wgsl(params, "i32(p.begin + chunk * (p.x_chunk / p.x_step) + k)"),
        native: |l| native::argmax(l, false),
    },
    variants: || list_variants(|x| vec![x, x, DType::I32]),
};

/// x is the extreme of each part, `origin` its index.
pub static ARGMAX_OF_PARTS: Kernel = Kernel {
    name: "argmax of parts",
    bindings: &[
        ("x", Access::Read),
        ("origin", Access::Read),
        ("value", Access::ReadWrite),
        ("y", Access::ReadWrite),
    ],
    scalars: ArgmaxScalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_wgsl(params, "load_origin(base + k * p.x_step)"),
        native: |l| native::argmax(l, true),
    },
    variants: || list_variants(|x| vec![x, DType::I32, x, DType::I32]),
};

/// `params` = [1 for the minimum, 1 for i32].
fn list_variants(dtypes: impl Fn(DType) -> Vec<DType>) -> Vec<Variant> {
    let configs = [(0, DType::F32), (1, DType::F32), (0, DType::I32), (1, DType::I32)];
    let make_variant = |(smallest, x)| Variant {
        params: [smallest, (x == DType::I32) as u32, 0, 0],
        dtypes: dtypes(x),
        threads: THREADS,
    };
    configs.map(make_variant).into()
}

fn emit_wgsl(params: Params, index: &str) -> String {
    let sign = if params[0] == 1 { "<" } else { ">" };
    let (element, nan) = match params[1] {
        1 => ("i32", String::new()),
        _ => (
            "f32",
            "if is_nan(v) || is_nan(best) { return is_nan(v) && (!is_nan(best) || i < j); }".to_string(),
        ),
    };
    format!(
        "alias Element = {element};\nfn index(base: u32, chunk: u32, k: u32) -> i32 {{ return {index}; }}\n\
         fn beats(v: Element, i: i32, best: Element, j: i32) -> bool {{\n\
           {nan}\n\
           return v {sign} best || (v == best && i < j);\n\
         }}\n{}",
        include_str!("argmax.wgsl")
    )
}

/// Appends y[outer, inner] = the first index of the maximum of x seen as [outer, n, inner]; NaN counts as the largest,
/// as in PyTorch. n is at least 1.
pub fn argmax(cx: &Rc<Context>, x: &Value, space: [usize; 3], y: &Value) -> Result<()> {
    arg_extremum(cx, Extreme::Max, x, space, y)
}

/// Appends y[outer, inner] = the first index of the extreme of x (f32 or i32) seen as [outer, n, inner]; NaN precedes
/// all numbers, as in PyTorch. n is at least 1.
pub fn arg_extremum(
    cx: &Rc<Context>,
    extreme: Extreme,
    x: &Value,
    [outer, n, inner]: [usize; 3],
    y: &Value,
) -> Result<()> {
    debug_assert_eq!(x.size(), outer * n * inner);
    let value = cx.empty([outer, inner], x.dtype)?;
    if let Some((chunks, plans)) = plan_chunks(x, [outer, n, inner]) {
        let largest = cx.empty([outer, chunks, inner], x.dtype)?;
        let from = cx.empty([outer, chunks, inner], DType::I32)?;
        for plan in plans {
            launch(cx, &ARGMAX, extreme, &plan, &[], plan.x_start / inner, &[&largest, &from])?;
        }
        let plan = plan_whole(&largest, [outer, chunks, inner]);
        return launch(cx, &ARGMAX_OF_PARTS, extreme, &plan, &[&from], 0, &[&value, y]);
    }
    launch(cx, &ARGMAX, extreme, &plan_whole(x, [outer, n, inner]), &[], 0, &[&value, y])
}

fn plan_whole(x: &Value, [outer, n, inner]: [usize; 3]) -> Plan<'_> {
    Plan { x, x_start: 0, x_outer: n * inner, y_start: 0, y_outer: inner, space: [outer, 1, n, inner] }
}

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    extreme: Extreme,
    plan: &Plan,
    others: &[&Value],
    begin: usize,
    ys: &[&Value],
) -> Result<()> {
    let n = plan.space[2];
    plan.windows(cx, "argmax", others, ys, |w, rows| {
        let begin = begin + w.start[1] * n + w.start[2];
        let groups = rows.rows * rows.inner;
        cx.launch(Launch {
            kernel,
            params: [extreme as u32, (plan.x.dtype == DType::I32) as u32, 0, 0],
            bindings: w.ranges,
            groups: groups as u32,
            threads: THREADS,
            work: (groups * rows.n) as u64,
            scalars: ArgmaxScalars { rows, begin }.words(),
        });
    })
}

pub static PLACE: Kernel = Kernel {
    name: "place",
    bindings: &[("index", Access::Read), ("d", Access::Read), ("y", Access::Write)],
    scalars: PlaceScalars::members,
    implementations: Implementations::Both { wgsl: |_| PLACE_WGSL.into(), native: native::place_at_index },
    variants: || {
        let dtypes = vec![DType::I32, DType::F32, DType::F32];
        vec![Variant { params: [0; 4], dtypes, threads: THREADS }]
    },
};

const PLACE_WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.n * p.inner { return; }
  let column = id % p.inner;
  let k = id / p.inner % p.n;
  let row = id / p.inner / p.n;
  let at = row * p.y_step + column;
  let here = load_index(at) == i32(p.begin + k);
  store_y(row * p.y_outer + k * p.y_step + column, select(0.0, load_d(at), here));
}
";

/// Appends y[outer, n, inner] = d[outer, inner] where n is index[outer, inner], 0 elsewhere.
pub fn place_at_index(
    cx: &Rc<Context>,
    index: &Value,
    d: &Value,
    [outer, n, inner]: [usize; 3],
    y: &Value,
) -> Result<()> {
    let binds = [
        Bind::new(index, &[inner, 0, 1], 1),
        Bind::new(d, &[inner, 0, 1], 1),
        Bind::new(y, &[n * inner, inner, 1], 1),
    ];
    for_each_window(cx, "place", &[outer, n, inner], &[], &binds, |w| {
        let size: usize = w.count.iter().product();
        let scalars = PlaceScalars {
            rows: w.count[0],
            n: w.count[1],
            inner: w.count[2],
            y_outer: n * inner,
            y_step: inner,
            begin: w.start[1],
        };
        cx.launch(Launch {
            kernel: &PLACE,
            params: [0; 4],
            bindings: w.ranges,
            scalars: scalars.words(),
            groups: (size as u32).div_ceil(THREADS),
            threads: THREADS,
            work: size as u64,
        });
    })
}
