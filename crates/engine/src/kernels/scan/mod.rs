//! Running sums along the middle of [outer, n, inner].
//!
//! Maths: y[o, k, i] = Σ x[o, j, i] over j ≤ k. Layout: row-major. If inner is 1, one workgroup per row, in blocks of
//! `THREADS`: each block is scanned in workgroup memory (Hillis and Steele's, log₂ THREADS steps) and starts from the
//! sum of the earlier blocks. Otherwise one invocation per column. The CPU implementation uses f64. If a binding is too short for
//! a row, `carry` passes the sum from one window to the next. Cost: one pass. On a GPU a sum has at most n / THREADS +
//! log₂ THREADS roundings.

mod native;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

const THREADS: u32 = 64;

scalars! {
    struct Scalars {
        rows: usize,
        n: usize,
        inner: usize,
        outer_step: usize,
        step: usize,
        /// Whether this is the first window of a row.
        first: bool,
    }
}

/// `params` = [1 for one invocation per column, 0 for one workgroup per row].
static SCAN: Kernel = Kernel {
    name: "scan",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite), ("carry", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| match params[0] {
            1 => include_str!("columns.wgsl").into(),
            _ => include_str!("rows.wgsl").into(),
        },
        native: native::scan,
    },
    variants: || {
        let variant =
            |columns| Variant { params: [columns, 0, 0, 0], dtypes: vec![DType::F32; 3], threads: THREADS };
        [0, 1].map(variant).into()
    },
};

pub const KERNELS: &[&Kernel] = &[&SCAN];

/// Appends y = the running sums of x, both f32, seen as [outer, n, inner].
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn scan(cx: &Rc<Context>, x: &Value, [outer, n, inner]: [usize; 3], y: &Value) -> Result<()> {
    let carry = cx.empty([outer, inner], DType::F32)?;
    let strides = [n * inner, inner, 1];
    let binds = [Bind::new(x, &strides, 1), Bind::new(y, &strides, 1), Bind::new(&carry, &[inner, 0, 1], 1)];
    let columns = inner > 1;
    for_each_window(cx, "cumsum", &[outer, n, inner], &[], &binds, |w| {
        let (rows, lines) = (w.count[0], w.count[0] * w.count[2]);
        let scalars = Scalars {
            rows,
            n: w.count[1],
            inner: w.count[2],
            outer_step: n * inner,
            step: inner,
            first: w.start[1] == 0,
        };
        cx.launch(Launch {
            kernel: &SCAN,
            params: [columns as u32, 0, 0, 0],
            scalars: scalars.words(),
            groups: if columns { lines.div_ceil(THREADS as usize) } else { rows } as u32,
            threads: THREADS,
            work: (lines * w.count[1]) as u64 * 2,
            bindings: w.ranges,
        });
    })
}
