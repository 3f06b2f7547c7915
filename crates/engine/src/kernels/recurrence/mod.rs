//! Running products along the middle of [outer, n, inner], and the recurrence of their gradient.
//!
//! Maths, per line, with c the value carried along it:
//!
//! ```text
//! Product    y[k] = c·a[k],    c ← y[k],        c = 1 at the start
//! Exclusive  y[k] = c,         c ← c·a[k],      c = 1 at the start
//! Sum        y[k] = c + b[k],  c ← a[k]·y[k],   c = 0 at the start
//! ```
//!
//! Layout: row-major; one invocation computes one line; natively up to 64 neighbouring lines together in f64. A tree
//! over the line would be parallel, but a part of it can overflow where the product from the start is 0, and 0·∞ is
//! NaN. If a binding is too short for a line, `carry` passes c from one window to the next. Cost: one pass; on a GPU
//! the time of n dependent loads, so long lines need many neighbours.

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

/// The function of the line; see the module.
#[derive(Clone, Copy, Debug)]
pub enum Rule<'a> {
    Product,
    Exclusive,
    Sum(&'a Value),
}

impl Rule<'_> {
    fn index(self) -> u32 {
        match self {
            Rule::Product => 0,
            Rule::Exclusive => 1,
            Rule::Sum(_) => 2,
        }
    }
}

scalars! {
    struct Scalars {
        rows: usize,
        n: usize,
        inner: usize,
        outer_step: usize,
        step: usize,
        /// Whether this is the first window of a line.
        first: bool,
    }
}

/// `params` = [the rule's number].
static RECURRENCE: Kernel = Kernel {
    name: "recurrence",
    bindings: &[
        ("a", Access::Read),
        ("b", Access::Read),
        ("y", Access::ReadWrite),
        ("carry", Access::ReadWrite),
    ],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |params| {
            let [start, body] = [
                ["1.0", "c = c * load_a(at); store_y(at, c);"],
                ["1.0", "store_y(at, c); c = c * load_a(at);"],
                ["0.0", "let y = c + load_b(at); store_y(at, y); c = load_a(at) * y;"],
            ][params[0] as usize];
            include_str!("recurrence.wgsl").replace("START", start).replace("BODY", body)
        },
        native: native::recurrence,
    },
    variants: || {
        let variant =
            |rule| Variant { params: [rule, 0, 0, 0], dtypes: vec![DType::F32; 4], threads: THREADS };
        [0, 1, 2].map(variant).into()
    },
};

pub const KERNELS: &[&Kernel] = &[&RECURRENCE];

/// Appends y = the recurrence of `rule` over a, both f32, seen as [outer, n, inner].
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn recurrence(
    cx: &Rc<Context>,
    rule: Rule,
    a: &Value,
    [outer, n, inner]: [usize; 3],
    y: &Value,
) -> Result<()> {
    let carry = cx.empty([outer, inner], DType::F32)?;
    let strides = [n * inner, inner, 1];
    let b = if let Rule::Sum(b) = rule { b } else { a };
    let binds = [
        Bind::new(a, &strides, 1),
        Bind::new(b, &strides, 1),
        Bind::new(y, &strides, 1),
        Bind::new(&carry, &[inner, 0, 1], 1),
    ];
    for_each_window(cx, "cumprod", &[outer, n, inner], &[], &binds, |w| {
        let lines = w.count[0] * w.count[2];
        let scalars = Scalars {
            rows: w.count[0],
            n: w.count[1],
            inner: w.count[2],
            outer_step: n * inner,
            step: inner,
            first: w.start[1] == 0,
        };
        cx.launch(Launch {
            kernel: &RECURRENCE,
            params: [rule.index(), 0, 0, 0],
            scalars: scalars.words(),
            groups: lines.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: (lines * w.count[1]) as u64 * 2,
            bindings: w.ranges,
        });
    })
}
