//! Softmax and its logarithm over the middle of [outer, n, inner], and their gradients.
//!
//! Maths: y = e^(x − m) / s, or x − m − ln s, with m the maximum and s = Σ e^(x − m); d_x = y (d − Σ d y), or d − eʸ Σ
//! d.
//! Layout: row-major; one workgroup per row if inner is 1, otherwise one invocation per column. NaN, +∞ and rows of
//! only −∞ give NaN throughout the row, as in PyTorch. Cost: two reads of x, since m and s are computed in one pass
//! (the running sum is rescaled when the maximum grows).
//!
//! Counted from the shaders: two reads and a write of 4 bytes per element, with the second read served by the cache,
//! and 2.25 exponentials if rows are read in vectors (otherwise 3): bound by memory. A row's maximum and sum use
//! subgroups if available, with 2 barriers instead of 9, in an order that depends on the device.

mod native;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::shader::LOG_SUM;
use crate::kernel::shader::rows::RowConfig;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::launch::for_each_row_window;
use crate::scalars;

/// Softmax or its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoftmaxKind {
    Softmax,
    LogSoftmax,
}

const THREADS: u32 = 128;

scalars! {
    struct Scalars { n: usize, inner: usize, rows: usize, logarithm: bool }
}

/// `params` = [1 for one invocation per column, else 0 and the `RowConfig`].
static SOFTMAX: Kernel = Kernel {
    name: "softmax",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both { wgsl: emit_forward, native: native::forward },
    variants: || list_variants(2),
};
static BACKWARD: Kernel = Kernel {
    name: "softmax backward",
    bindings: &[("y", Access::Read), ("d", Access::Read), ("d_x", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both { wgsl: emit_backward, native: native::backward },
    variants: || list_variants(3),
};

pub const KERNELS: &[&Kernel] = &[&SOFTMAX, &BACKWARD];

const COLUMNS: Params = [1, 0, 0, 0];

fn make_row_params(config: RowConfig) -> Params {
    [0, config.param(), 0, 0]
}

fn list_variants(bindings: usize) -> Vec<Variant> {
    let make_variant = |params| Variant { params, dtypes: vec![DType::F32; bindings], threads: THREADS };
    RowConfig::list().map(make_row_params).chain([COLUMNS]).map(make_variant).collect()
}

fn emit_forward(params: Params) -> String {
    if params == COLUMNS {
        return [LOG_SUM, include_str!("columns.wgsl")].concat();
    }
    let config = RowConfig::from_param(params[1]);
    [&config.emit_cells(SOFTMAX.bindings, &["x", "y"]), &config.emit_log_sum(), include_str!("rows.wgsl")]
        .concat()
}

fn emit_backward(params: Params) -> String {
    if params == COLUMNS {
        return include_str!("backward_columns.wgsl").into();
    }
    let config = RowConfig::from_param(params[1]);
    let cells = config.emit_cells(BACKWARD.bindings, &["y", "d", "d_x"]);
    [&cells, config.workgroup(), include_str!("backward_rows.wgsl")].concat()
}

/// Appends y = softmax of x seen as [outer, n, inner], or its logarithm, over n.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if n · inner elements exceed the binding limit.
pub fn softmax(cx: &Rc<Context>, kind: SoftmaxKind, x: &Value, space: [usize; 3], y: &Value) -> Result<()> {
    launch(cx, &SOFTMAX, kind, &[x, y], space)
}

/// Appends d_x from softmax's y and its gradient.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`, as for `softmax`.
pub fn softmax_backward(
    cx: &Rc<Context>,
    kind: SoftmaxKind,
    y: &Value,
    d: &Value,
    space: [usize; 3],
    d_x: &Value,
) -> Result<()> {
    launch(cx, &BACKWARD, kind, &[y, d, d_x], space)
}

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    kind: SoftmaxKind,
    values: &[&Value],
    [outer, n, inner]: [usize; 3],
) -> Result<()> {
    if n * inner == 0 {
        return Ok(());
    }
    let columns = inner > 1;
    for_each_row_window(cx, kernel.name, outer, values, &[], |w| {
        let rows = w.count[0];
        let params = match columns {
            true => COLUMNS,
            false => make_row_params(RowConfig::new(&cx.profile, n, w.ranges.iter())),
        };
        let logarithm = kind == SoftmaxKind::LogSoftmax;
        cx.launch(Launch {
            kernel,
            params,
            bindings: w.ranges,
            scalars: Scalars { n, inner, rows, logarithm }.words(),
            groups: if columns { (rows * inner).div_ceil(THREADS as usize) } else { rows } as u32,
            threads: THREADS,
            work: (rows * n * inner * 16) as u64,
        });
    })
}
