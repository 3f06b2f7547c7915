//! Reversal of the middle of [outer, n, inner].
//!
//! Maths: y[o, k, i] = x[o, n − 1 − k, i]; copies bits without interpreting them. Layout: row-major; one invocation per
//! element, natively one row of `inner` at a time. Cost: one pass, bound by memory. A window of y is bound with its
//! mirror image in x.

use std::rc::Rc;

use lowrank_cpu::tasks::{GRAIN, Shared, each_row};

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::native::NativeLaunch;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

const THREADS: u32 = 128;

scalars! {
    struct Scalars { outer: usize, n: usize, inner: usize, outer_step: usize, step: usize }
}

static FLIP: Kernel = Kernel {
    name: "flip",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite)],
    scalars: Scalars::members,
    implementations: Implementations::Both {
        wgsl: |_| WGSL.into(),
        native: |l| match l.dtype(0).bytes() {
            4 => run_native::<u32>(l),
            _ => run_native::<u16>(l),
        },
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::I32; 2], threads: THREADS }],
};

pub const KERNELS: &[&Kernel] = &[&FLIP];

const WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.outer * p.n * p.inner { return; }
  let k = id / p.inner % p.n;
  let at = id / p.inner / p.n * p.outer_step + id % p.inner;
  store_y(at + k * p.step, load_x(at + (p.n - 1u - k) * p.step));
}
";

fn run_native<T: bytemuck::Pod + Send + Sync>(l: &NativeLaunch) {
    let Scalars { outer, n, inner, outer_step, step } = l.scalars();
    let x = l.read::<T>(0);
    let y = Shared::new(l.write::<T>(1));
    each_row(outer * n, GRAIN / inner, |row| {
        let (at, k) = (row / n * outer_step, row % n);
        // SAFETY: each row belongs to one task.
        let y = unsafe { y.slice(at + k * step, inner) };
        y.copy_from_slice(&x[at + (n - 1 - k) * step..][..inner]);
    });
}

/// Appends y = x seen as [outer, n, inner], with n reversed. Two-byte types only on the cpu: see `copy::with_f32_copies`.
///
/// # Errors
/// None on existing devices.
pub fn flip(cx: &Rc<Context>, x: &Value, [outer, n, inner]: [usize; 3], y: &Value) -> Result<()> {
    debug_assert_eq!(x.dtype, y.dtype);
    let strides = [n * inner, inner, 1];
    let binds = [Bind::new(x, &strides, 1), Bind::new(y, &strides, 1)];
    for_each_window(cx, "flip", &[outer, n, inner], &[], &binds, |mut w| {
        let mirrored = [w.start[0], n - w.start[1] - w.count[1], w.start[2]];
        let first: usize = mirrored.iter().zip(strides).map(|(at, step)| at * step).sum();
        let extent: usize = w.count.iter().zip(strides).map(|(n, step)| (n - 1) * step).sum::<usize>() + 1;
        w.ranges[0] = x.part(first, extent);
        for range in &mut w.ranges {
            if range.dtype == DType::F32 {
                range.dtype = DType::I32;
            }
        }
        let size: usize = w.count.iter().product();
        let [outer, n, inner] = [0, 1, 2].map(|d| w.count[d]);
        cx.launch(Launch {
            kernel: &FLIP,
            params: [0; 4],
            bindings: w.ranges,
            scalars: Scalars { outer, n, inner, outer_step: strides[0], step: strides[1] }.words(),
            groups: size.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: size as u64,
        });
    })
}
