//! Softmax and its logarithm over the middle of [outer, n, inner], and their gradients.
//!
//! Maths: y = e^(x − m) / s, or x − m − ln s, with m the maximum and s = Σ e^(x − m); d_x = y (d − Σ d y),
//! or d − eʸ Σ d. Layout: row-major; one workgroup a row where inner is 1, one invocation a column
//! elsewhere. NaN, +∞ and rows of −∞ alone give NaN throughout the row, as in PyTorch. Cost: two
//! reads of x, since m and s are found in one pass (the running sum is rescaled when the maximum grows).

mod native;

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::shader::{LOG_SUM, LOG_SUM_ROWS, WORKGROUP};
use crate::kernel::{Access, Kernel, Params, Scalar, Twin, Variant, members_of};
use crate::launch::row_windows;
use crate::recording::Launch;
use crate::value::Value;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Softmax,
    LogSoftmax,
}

const THREADS: u32 = 128;
const SCALARS: [Scalar; 3] = [Scalar::U32("n"), Scalar::U32("inner"), Scalar::U32("rows")];

static SOFTMAX: Kernel = Kernel {
    name: "softmax",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: || members_of(&SCALARS),
    twin: Twin::Both { wgsl: forward_wgsl, native: native::forward },
    variants: || variants(2),
};
static BACKWARD: Kernel = Kernel {
    name: "softmax backward",
    bindings: &[("y", Access::Read), ("d", Access::Read), ("d_x", Access::Write)],
    scalars: || members_of(&SCALARS),
    twin: Twin::Both { wgsl: backward_wgsl, native: native::backward },
    variants: || variants(3),
};

pub const KERNELS: &[&Kernel] = &[&SOFTMAX, &BACKWARD];

/// `params` = [form, 1 where an invocation takes a column].
fn variants(bindings: usize) -> Vec<Variant> {
    (0..2)
        .flat_map(|form| [0, 1].map(|columns| [form, columns, 0, 0]))
        .map(|params| Variant { params, dtypes: vec![DType::F32; bindings], threads: THREADS })
        .collect()
}

/// Where a lane's terms are, and what joins the lanes.
fn head(params: Params) -> &'static str {
    if params[1] == 1 {
        "let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let base = id / p.inner * p.n * p.inner + id % p.inner;
  let step = p.inner;
  let start = 0u;
  let skip = 1u;"
    } else {
        "let base = group * p.n;
  let step = 1u;
  let start = lane;
  let skip = THREADS;"
    }
}

fn forward_wgsl(params: Params) -> String {
    let columns = params[1] == 1;
    let rows = if columns { String::new() } else { WORKGROUP.to_string() + LOG_SUM_ROWS };
    let gather = if columns { "own" } else { "gathered(lane, own)" };
    let value = match params[0] {
        0 => "select(0.0, shifted(v, sum.m) / sum.s, is_finite(v))",
        _ => "select(v, v - sum.m - log(sum.s), is_finite(v))",
    };
    format!(
        "{LOG_SUM}{rows}
fn kernel(group: u32, lane: u32) {{
  {}
  var own = no_terms();
  for (var k = start; k < p.n; k += skip) {{ own = with_term(own, load_x(base + k * step)); }}
  let sum = {gather};
  for (var k = start; k < p.n; k += skip) {{
    let v = load_x(base + k * step);
    if is_sound(sum) {{ store_y(base + k * step, {value}); }} else {{ store_y(base + k * step, nan()); }}
  }}
}}
",
        head(params)
    )
}

fn backward_wgsl(params: Params) -> String {
    let columns = params[1] == 1;
    let (term, value) = match params[0] {
        0 => ("d * y", "y * (d - sum)"),
        _ => ("d", "d - exp(y) * sum"),
    };
    let (rows, sum, bad) =
        if columns { ("", "own", "mark") } else { (WORKGROUP, "total(lane, own)", "marked(lane, mark)") };
    format!(
        "{rows}
fn kernel(group: u32, lane: u32) {{
  {}
  var own = 0.0;
  var mark = 0u;
  for (var k = start; k < p.n; k += skip) {{
    let y = load_y(base + k * step);
    let d = load_d(base + k * step);
    own += {term};
    mark |= u32(is_nan(y) || is_nan(d));
  }}
  let sum = {sum};
  let bad = {bad};
  for (var k = start; k < p.n; k += skip) {{
    let y = load_y(base + k * step);
    let d = load_d(base + k * step);
    if bad == 0u {{ store_d_x(base + k * step, {value}); }} else {{ store_d_x(base + k * step, nan()); }}
  }}
}}
",
        head(params)
    )
}

/// Appends y = softmax of x seen as [outer, n, inner], or its logarithm, over n.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` when n · inner elements are more than a binding may span.
pub fn softmax(cx: &Rc<Context>, form: Form, x: &Value, space: [usize; 3], y: &Value) -> Result<()> {
    launch(cx, &SOFTMAX, form, &[x, y], space)
}

/// Appends d_x from softmax's y and the gradient of it.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`, as `softmax`.
pub fn softmax_backward(
    cx: &Rc<Context>,
    form: Form,
    y: &Value,
    d: &Value,
    space: [usize; 3],
    d_x: &Value,
) -> Result<()> {
    launch(cx, &BACKWARD, form, &[y, d, d_x], space)
}

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    form: Form,
    values: &[&Value],
    [outer, n, inner]: [usize; 3],
) -> Result<()> {
    if n * inner == 0 {
        return Ok(());
    }
    let columns = inner > 1;
    row_windows(cx, kernel.name, outer, values, &[], |w| {
        let rows = w.count[0];
        cx.launch(Launch {
            kernel,
            params: [form as u32, columns as u32, 0, 0],
            bindings: w.ranges,
            scalars: SmallVec::from_slice(&[n as u32, inner as u32, rows as u32]),
            groups: if columns { (rows * inner).div_ceil(THREADS as usize) } else { rows } as u32,
            threads: THREADS,
            work: (rows * n * inner * 16) as u64,
        });
    })
}
