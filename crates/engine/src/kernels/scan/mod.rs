//! Running sums along the middle of [outer, n, inner].
//!
//! Maths: y[o, k, i] = Σ x[o, j, i] over j ≤ k. Layout: row-major; where inner is 1 a workgroup takes a row, a block of
//! `THREADS` at a time: each block is scanned in shared memory (Hillis and Steele's, log₂ THREADS steps) and starts from
//! what those before it came to; elsewhere an invocation takes a column. Natively the running sum is f64. Where a
//! binding is too short for a row, `carry` takes the sum from one window to the next. Cost: one pass. A sum is of at
//! most n / THREADS + log₂ THREADS roundings on a gpu.

use std::rc::Rc;

use crate::context::Context;
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::native::{NativeLaunch, Shared, each_row};
use crate::kernel::{Access, Kernel, Scalar, Twin, Variant, members_of};
use crate::launch::{Bind, windows};
use crate::recording::Launch;
use crate::value::Value;

const THREADS: u32 = 64;

/// `params` = [1 where an invocation takes a column and 0 where a workgroup takes a row].
static SCAN: Kernel = Kernel {
    name: "scan",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite), ("carry", Access::ReadWrite)],
    scalars: || {
        members_of(&[
            Scalar::U32("rows"),
            Scalar::U32("n"),
            Scalar::U32("inner"),
            Scalar::U32("outer_step"),
            Scalar::U32("step"),
            // 1 for the first window of a row.
            Scalar::U32("first"),
        ])
    },
    twin: Twin::Both {
        wgsl: |params| match params[0] {
            1 => include_str!("columns.wgsl").into(),
            _ => include_str!("rows.wgsl").into(),
        },
        native,
    },
    variants: || {
        let variant =
            |columns| Variant { params: [columns, 0, 0, 0], dtypes: vec![DType::F32; 3], threads: THREADS };
        [0, 1].map(variant).into()
    },
};

pub const KERNELS: &[&Kernel] = &[&SCAN];

/// Neighbouring columns that a task walks together.
const WIDTH: usize = 64;

fn native(l: &NativeLaunch) {
    let [rows, n, inner, outer_step, step, first] = std::array::from_fn(|i| l.u32(i));
    let x = l.read::<f32>(0);
    let y = Shared::new(l.write::<f32>(1));
    let carry = Shared::new(l.write::<f32>(2));
    let pieces = inner.div_ceil(WIDTH);
    each_row(rows * pieces, 16 * 1024 / (n * WIDTH.min(inner)), |task| {
        let (row, from) = (task / pieces, task % pieces * WIDTH);
        let width = WIDTH.min(inner - from);
        let carry = unsafe { carry.slice(row * step + from, width) };
        let mut sums = [0f64; WIDTH];
        if first == 0 {
            sums.iter_mut().zip(carry.iter()).for_each(|(s, c)| *s = *c as f64);
        }
        for k in 0..n {
            let at = row * outer_step + k * step + from;
            let y = unsafe { y.slice(at, width) };
            for ((y, x), s) in y.iter_mut().zip(&x[at..]).zip(&mut sums) {
                *s += *x as f64;
                *y = *s as f32;
            }
        }
        carry.iter_mut().zip(sums).for_each(|(c, s)| *c = s as f32);
    });
}

/// Appends y = the running sums of x, both f32, seen as [outer, n, inner].
///
/// # Errors
/// `ERR_OUT_OF_MEMORY`.
pub fn scan(cx: &Rc<Context>, x: &Value, [outer, n, inner]: [usize; 3], y: &Value) -> Result<()> {
    let carry = cx.empty([outer, inner], DType::F32)?;
    let strides = [n * inner, inner, 1];
    let binds = [Bind::new(x, &strides, 1), Bind::new(y, &strides, 1), Bind::new(&carry, &[inner, 0, 1], 1)];
    let columns = inner > 1;
    windows(cx, "cumsum", &[outer, n, inner], &[], &binds, |w| {
        let (rows, lines) = (w.count[0], w.count[0] * w.count[2]);
        let scalars = [rows, w.count[1], w.count[2], n * inner, inner, (w.start[1] == 0) as usize];
        cx.launch(Launch {
            kernel: &SCAN,
            params: [columns as u32, 0, 0, 0],
            bindings: w.ranges,
            scalars: scalars.iter().map(|v| *v as u32).collect(),
            groups: if columns { lines.div_ceil(THREADS as usize) } else { rows } as u32,
            threads: THREADS,
            work: (lines * w.count[1]) as u64 * 2,
        });
    })
}
