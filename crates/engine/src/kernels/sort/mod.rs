//! The middle of [outer, n, inner] in order, and where each element stood.
//!
//! The order is that of keys: whole numbers of 32 bits that compare as the elements do, −0 as 0, NaN above all, turned
//! over for the descending order; equal keys stay in the order they came in. So the result is one, on every device.
//!
//! Natively a task takes a line: it sorts words of key and place (O(n log n)), or selects the first `count` of them and
//! sorts these alone. On a GPU runs of 1, 2, 4, … elements are merged: an element's place in the merged run is its place
//! in its own and the number of elements of the neighbouring run that come before it, found by bisection; where a binding
//! is too short for a line, those numbers are added up over the parts of the neighbour. log₂ n passes of two launches,
//! each reading and writing a line of keys and places.

mod merge;
mod native;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Kernel, Launch, Twin};
use crate::launch::{Bind, windows};
use crate::profile::Kind;
use crate::scalars;

scalars! {
    struct Scalars {
        outer: usize,
        n: usize,
        inner: usize,
        count: usize,
        descending: bool,
        /// Elements from one of `outer` to the next, of x and of the results; and along n.
        x_step: usize,
        y_step: usize,
        step: usize,
    }
}

static SORT: Kernel = Kernel {
    name: "sort",
    bindings: &[("x", Access::Read), ("values", Access::ReadWrite), ("indices", Access::ReadWrite)],
    scalars: Scalars::members,
    twin: Twin::Native(native::sort),
    variants: Vec::new,
};

pub const KERNELS: &[&Kernel] = &[&SORT, &merge::KEYS, &merge::RANK, &merge::MOVE, &merge::VALUES];

/// Appends the first `count` of x (f32 or i32), seen as [outer, n, inner], in order along n, and their places.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn sort(
    cx: &Rc<Context>,
    x: &Value,
    [outer, n, inner]: [usize; 3],
    descending: bool,
    count: usize,
    values: &Value,
    indices: &Value,
) -> Result<()> {
    if outer * count * inner == 0 {
        return Ok(());
    }
    if cx.profile.kind != Kind::Cpu {
        return merge::sort(cx, x, [outer, n, inner], descending, count, values, indices);
    }
    let line = |n: usize| (n - 1) * inner + 1;
    let binds = [
        Bind::new(x, &[n * inner, 1], line(n)),
        Bind::new(values, &[count * inner, 1], line(count)),
        Bind::new(indices, &[count * inner, 1], line(count)),
    ];
    windows(cx, "sort", &[outer, inner], &[], &binds, |w| {
        let lines = w.count[0] * w.count[1];
        let scalars = Scalars {
            outer: w.count[0],
            n,
            inner: w.count[1],
            count,
            descending,
            x_step: n * inner,
            y_step: count * inner,
            step: inner,
        };
        cx.launch(Launch {
            kernel: &SORT,
            params: [0; 4],
            bindings: w.ranges,
            scalars: scalars.words(),
            groups: lines as u32,
            threads: 1,
            work: (lines * n * (n.ilog2() as usize + 1)) as u64,
        });
    })
}

/// WGSL: the key of an element, before it is turned over.
fn key(dtype: DType) -> &'static str {
    match dtype {
        DType::I32 => "fn key(v: i32) -> u32 { return bitcast<u32>(v) ^ 0x80000000u; }\n",
        _ => {
            "fn key(v: f32) -> u32 {
  if is_nan(v) { return 0xffffffffu; }
  let bits = bitcast<u32>(v);
  if (bits & 0x7fffffffu) == 0u { return 0x80000000u; }
  return select(bits ^ 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
"
        }
    }
}
