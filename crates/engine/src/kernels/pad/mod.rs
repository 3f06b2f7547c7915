//! Padding of the middle of [outer, n, inner] with its elements, and its gradient.
//!
//! Maths: y[o, j, i] = x[o, s(j), i]. Inside, s(j) = j − before; outside it is the mirror image about the end
//! (reflect), the end (replicate), or the position one period away (circular). d_x[o, k, i] = Σ d[o, j, i] over the j
//! with s(j) = k: first the one inside, then those before, then those after, so that no two invocations write one
//! location.
//! Cost: one pass.

mod native;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::launch::for_each_row_window;
use crate::scalars;

/// The source of padding elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Reflect,
    Replicate,
    Circular,
}

const THREADS: u32 = 64;

scalars! {
    pub(super) struct Scalars {
        /// The number of elements that a launch writes: of y, or of x in backward.
        count: usize,
        n: usize,
        inner: usize,
        before: usize,
        after: usize,
    }
}

/// `params` = [mode, 0, 0, 0].
static PAD: Kernel = Kernel {
    name: "pad",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_mode(params) + include_str!("pad.wgsl"),
        native: native::pad,
    },
    variants: list_variants,
};

static PAD_BACKWARD: Kernel = Kernel {
    name: "pad_backward",
    bindings: &[("d", Access::Read), ("d_x", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_mode(params) + include_str!("backward.wgsl"),
        native: native::backward,
    },
    variants: list_variants,
};

pub const KERNELS: &[&Kernel] = &[&PAD, &PAD_BACKWARD];

fn emit_mode(params: Params) -> String {
    format!("const MODE: u32 = {}u;\n", params[0])
}

fn list_variants() -> Vec<Variant> {
    (0..3)
        .map(|mode| Variant { params: [mode, 0, 0, 0], dtypes: vec![DType::F32; 2], threads: THREADS })
        .collect()
}

/// The padding of one dimension: [outer, n, inner], and the number of elements on each side of n.
#[derive(Clone, Copy, Debug)]
pub struct Edges {
    pub mode: Mode,
    pub outer: usize,
    pub n: usize,
    pub inner: usize,
    pub before: usize,
    pub after: usize,
}

/// Appends y = x with padding.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if [n, inner] exceeds the binding limit.
pub fn pad(cx: &Rc<Context>, edges: Edges, x: &Value, y: &Value) -> Result<()> {
    launch(cx, &PAD, edges, x, y, edges.before + edges.n + edges.after)
}

/// Appends d_x from d, which includes the padding.
///
/// # Errors
/// As for `pad`.
pub fn pad_backward(cx: &Rc<Context>, edges: Edges, d: &Value, d_x: &Value) -> Result<()> {
    launch(cx, &PAD_BACKWARD, edges, d, d_x, edges.n)
}

fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    e: Edges,
    from: &Value,
    to: &Value,
    rows_per_outer: usize,
) -> Result<()> {
    for_each_row_window(cx, "pad", e.outer, &[from, to], &[], |window| {
        let count = window.count[0] * rows_per_outer * e.inner;
        cx.launch(Launch {
            kernel,
            params: [e.mode as u32, 0, 0, 0],
            bindings: window.ranges,
            scalars: Scalars { count, n: e.n, inner: e.inner, before: e.before, after: e.after }.words(),
            groups: count.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: count as u64 * 4,
        });
    })
}
