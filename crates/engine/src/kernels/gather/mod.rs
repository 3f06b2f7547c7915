//! Elements along the middle of [outer, n, inner] by an index of [outer, k, inner].
//!
//! Maths: y[o, k, i] = x[o, index[o, k, i], i], and d_x[o, j, i] = Σ d_y[o, k, i] over the k with index j, ascending.
//! An index outside 0..n gives NaN (0 in i32) and takes no gradient. Layout: row-major; one invocation per pick.
//! Cost: forward one pass. Backward: in each line of k, the first k with an index sums for all with it, so that no two
//! invocations write one location: at worst k² comparisons per line.

mod native;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

const THREADS: u32 = 64;

scalars! {
    pub(super) struct Scalars {
        /// The sizes of the window.
        outer: usize,
        picks: usize,
        inner: usize,
        /// The strides of the index's outer and middle dimension, and of x's.
        outer_step: usize,
        pick_step: usize,
        x_outer_step: usize,
        x_step: usize,
        /// The window of x's middle dimension, and the dimension's size.
        start: usize,
        count: usize,
        size: usize,
        /// Whether this launch writes the result of indices out of range.
        first: bool,
    }
}

static GATHER: Kernel = Kernel {
    name: "gather",
    bindings: &[("x", Access::Read), ("index", Access::Read), ("y", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| {
            let missing = match params[0] {
                1 => "fn missing() -> i32 { return 0; }\n",
                _ => "fn missing() -> f32 { return nan(); }\n",
            };
            [missing, include_str!("pick.wgsl"), include_str!("gather.wgsl")].concat()
        },
        native: native::gather,
    },
    // `params` = [1 for i32].
    variants: || {
        let float = |x| Variant { params: [0; 4], dtypes: vec![x, DType::I32, DType::F32], threads: THREADS };
        let whole = Variant { params: [1, 0, 0, 0], dtypes: vec![DType::I32; 3], threads: THREADS };
        [DType::F32, DType::F16, DType::BF16].map(float).into_iter().chain([whole]).collect()
    },
};

static GATHER_BACKWARD: Kernel = Kernel {
    name: "gather_backward",
    bindings: &[("d_x", Access::ReadWrite), ("index", Access::Read), ("d_y", Access::Read)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| concat!(include_str!("pick.wgsl"), include_str!("backward.wgsl")).into(),
        native: native::backward,
    },
    variants: || {
        let dtypes = vec![DType::F32, DType::I32, DType::F32];
        vec![Variant { params: [0; 4], dtypes, threads: THREADS }]
    },
};

static SCATTER: Kernel = Kernel {
    name: "put",
    bindings: &[("y", Access::ReadWrite), ("index", Access::Read), ("x", Access::Read)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| concat!(include_str!("pick.wgsl"), include_str!("put.wgsl")).into(),
        native: native::backward,
    },
    variants: || {
        let dtypes = vec![DType::F32, DType::I32, DType::F32];
        vec![Variant { params: [0; 4], dtypes, threads: THREADS }]
    },
};

pub const KERNELS: &[&Kernel] = &[&GATHER, &GATHER_BACKWARD, &SCATTER];

/// Appends y = x at the indices, which must be distinct, and 0 elsewhere: one pass.
pub fn scatter(cx: &Rc<Context>, y: &Value, index: &Value, x: &Value, dims: [usize; 4]) -> Result<()> {
    cx.zero(y);
    launch(cx, &SCATTER, [y, index, x], dims)
}

/// Appends y = x gathered; x is [outer, n, inner], index and y are [outer, k, inner]. y is f32, or i32 if x is.
pub fn gather(cx: &Rc<Context>, x: &Value, index: &Value, y: &Value, dims: [usize; 4]) -> Result<()> {
    launch(cx, &GATHER, [x, index, y], dims)
}

/// Appends d_x = d_y added at the gathered locations, 0 elsewhere.
pub fn scatter_add(
    cx: &Rc<Context>,
    d_x: &Value,
    index: &Value,
    d_y: &Value,
    dims: [usize; 4],
) -> Result<()> {
    cx.zero(d_x);
    add_at(cx, d_x, index, d_y, dims)
}

/// Appends x += y at the locations in the index, in ascending order of k.
pub fn add_at(cx: &Rc<Context>, x: &Value, index: &Value, y: &Value, dims: [usize; 4]) -> Result<()> {
    launch(cx, &GATHER_BACKWARD, [x, index, y], dims)
}

/// `dims` = [outer, n, k, inner]; `values` are in the order of the bindings.
fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    values: [&Value; 3],
    [outer, n, k, inner]: [usize; 4],
) -> Result<()> {
    let [x, index, y] = values;
    let index_strides = [k * inner, inner, 1, 0];
    let binds = [
        Bind::new(x, &[n * inner, 0, 1, inner], 1),
        Bind::new(index, &index_strides, 1),
        Bind::new(y, &index_strides, 1),
    ];
    for_each_window(cx, kernel.name, &[outer, k, inner, n], &[], &binds, |w| {
        let cells = w.count[0] * w.count[1] * w.count[2];
        let scalars = Scalars {
            outer: w.count[0],
            picks: w.count[1],
            inner: w.count[2],
            outer_step: k * inner,
            pick_step: inner,
            x_outer_step: n * inner,
            x_step: inner,
            start: w.start[3],
            count: w.count[3],
            size: n,
            first: w.start[3] == 0,
        };
        cx.launch(Launch {
            kernel,
            params: [(x.dtype == DType::I32) as u32, 0, 0, 0],
            bindings: w.ranges,
            scalars: scalars.words(),
            groups: cells.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: (cells * if kernel.name != GATHER_BACKWARD.name { 2 } else { w.count[1] }) as u64,
        });
    })
}
