//! Sorting along the middle of [outer, n, inner], with each element's original position.
//!
//! Elements are ordered by keys: 32-bit integers that compare like the elements, with −0 as 0 and NaN above all
//! numbers; complemented for descending order. Equal keys keep their order. So the result is the same on every device.
//!
//! In the CPU implementation a task sorts a line's words of key and position (O(n log n)), or selects the first `count` of them
//! and sorts only these. On a GPU runs of 1, 2, 4, … elements are merged. An element's position in the merged run is
//! its position in its run plus the number of preceding elements of the neighbouring run, found by bisection. If a
//! binding is too short for a line, these numbers are added over the parts of the neighbour. log₂ n passes of two
//! launches; each launch reads and writes a line of keys and positions.

mod merge;
mod native;

use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch};
use crate::launch::{Bind, for_each_window};
use crate::profile::Kind;
use crate::scalars;

scalars! {
    struct Scalars {
        outer: usize,
        n: usize,
        inner: usize,
        count: usize,
        descending: bool,
        /// The strides of `outer` in x and in the results, and of n.
        x_step: usize,
        y_step: usize,
        step: usize,
    }
}

static SORT: Kernel = Kernel {
    name: "sort",
    bindings: &[("x", Access::Read), ("values", Access::ReadWrite), ("indices", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Native(native::sort),
    variants: Vec::new,
};

pub const KERNELS: &[&Kernel] = &[&SORT, &merge::KEYS, &merge::RANK, &merge::MOVE, &merge::VALUES];

/// Appends the first `count` elements of x (f32 or i32), seen as [outer, n, inner] and sorted along n, and their
/// positions.
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
    for_each_window(cx, "sort", &[outer, inner], &[], &binds, |w| {
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

/// WGSL: the key of an element, before the complement.
fn emit_key(dtype: DType) -> &'static str {
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
