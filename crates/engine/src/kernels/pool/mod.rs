//! Maxima and means over windows of planes, and their gradients.
//!
//! Maths: y[p, o] = the maximum, or the mean, of x[p, i] over the i in window o. A window is [o·stride − padding, +
//! kernel) without the part outside of x; or, adaptive, [⌊o·size/out⌋, ⌈(o+1)·size/out⌉). A mean divides by the number
//! of elements in the window, with `count_padding` including the padding. The maximum is the first of equals, NaN if
//! there is one, and its position is kept for the gradient. d_x[p, i] is the sum of d over the windows that chose i, or
//! of d / divisor over the windows that contain it, o ascending. Cost: one pass, times the overlap of windows.

mod native;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::launch::for_each_row_window;
use crate::scalars;

const THREADS: u32 = 64;

scalars! {
    /// For each dimension: depth, height, width.
    pub(super) struct Scalars {
        /// The number of elements that a launch writes.
        count: usize,
        size: [usize; 3],
        out: [usize; 3],
        kernel: [usize; 3],
        stride: [usize; 3],
        padding: [usize; 3],
    }
}

/// `params` = [adaptive, divide by the padding, too, 0, 0].
static POOL_MAX: Kernel = Kernel {
    name: "pool_max",
    bindings: &[("x", Access::Read), ("y", Access::Write), ("index", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_body(params, include_str!("max.wgsl")),
        native: native::max,
    },
    variants: || vec![make_variant([0; 4], &[DType::F32, DType::F32, DType::I32])],
};

static POOL_MAX_BACKWARD: Kernel = Kernel {
    name: "pool_max_backward",
    bindings: &[("d", Access::Read), ("index", Access::Read), ("d_x", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_body(params, include_str!("max_backward.wgsl")),
        native: native::max_backward,
    },
    variants: || vec![make_variant([0; 4], &[DType::F32, DType::I32, DType::F32])],
};

static POOL_MEAN: Kernel = Kernel {
    name: "pool_mean",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_body(params, include_str!("mean.wgsl")),
        native: native::mean,
    },
    variants: list_mean_variants,
};

static POOL_MEAN_BACKWARD: Kernel = Kernel {
    name: "pool_mean_backward",
    bindings: &[("d", Access::Read), ("d_x", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_body(params, include_str!("mean_backward.wgsl")),
        native: native::mean_backward,
    },
    variants: list_mean_variants,
};

pub const KERNELS: &[&Kernel] = &[&POOL_MAX, &POOL_MAX_BACKWARD, &POOL_MEAN, &POOL_MEAN_BACKWARD];

fn make_variant(params: Params, dtypes: &[DType]) -> Variant {
    Variant { params, dtypes: dtypes.to_vec(), threads: THREADS }
}

fn list_mean_variants() -> Vec<Variant> {
    [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]].map(|params| make_variant(params, &[DType::F32; 2])).into()
}

fn emit_body([adaptive, count_padding, _, _]: Params, kernel: &str) -> String {
    let flags =
        format!("const ADAPTIVE = {};\nconst COUNT_PADDING = {};\n", adaptive == 1, count_padding == 1);
    flags + include_str!("windows.wgsl") + kernel
}

/// The windows of [planes, *size]; with fewer than three dimensions, the leading sizes are 1.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    pub planes: usize,
    pub size: [usize; 3],
    pub out: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub padding: [usize; 3],
    pub adaptive: bool,
    /// Whether a mean's divisor includes padding.
    pub count_padding: bool,
}

/// Appends y and the positions of the maxima in their planes (i32).
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`, as for all functions here, if a plane exceeds the binding limit.
pub fn max(cx: &Rc<Context>, w: &Windows, x: &Value, y: &Value, index: &Value) -> Result<()> {
    launch(cx, &POOL_MAX, w, &[x, y, index], w.out)
}

pub fn max_backward(cx: &Rc<Context>, w: &Windows, d: &Value, index: &Value, d_x: &Value) -> Result<()> {
    launch(cx, &POOL_MAX_BACKWARD, w, &[d, index, d_x], w.size)
}

pub fn mean(cx: &Rc<Context>, w: &Windows, x: &Value, y: &Value) -> Result<()> {
    launch(cx, &POOL_MEAN, w, &[x, y], w.out)
}

pub fn mean_backward(cx: &Rc<Context>, w: &Windows, d: &Value, d_x: &Value) -> Result<()> {
    launch(cx, &POOL_MEAN_BACKWARD, w, &[d, d_x], w.size)
}

/// Launches one invocation for each of the `written` elements per plane.
fn launch(
    cx: &Rc<Context>,
    kernel: &'static Kernel,
    w: &Windows,
    values: &[&Value],
    written: [usize; 3],
) -> Result<()> {
    let plane: usize = written.iter().product();
    let overlap: usize = w.kernel.iter().product();
    for_each_row_window(cx, "pool", w.planes, values, &[], |window| {
        let count = window.count[0] * plane;
        let Windows { size, out, kernel: kernel_size, stride, padding, .. } = *w;
        let scalars = Scalars { count, size, out, kernel: kernel_size, stride, padding };
        cx.launch(Launch {
            kernel,
            params: [w.adaptive as u32, w.count_padding as u32, 0, 0],
            bindings: window.ranges,
            scalars: scalars.words(),
            groups: count.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: (count * overlap) as u64,
        });
    })
}
