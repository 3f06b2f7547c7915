//! Dense products of one input of few rows by two or three weights, as one launch on the CPU: one synchronisation of
//! the threads instead of two or three, which dominates decoding.
//!
//! Maths: y_i = x·W_iᵀ, each summed as a separate product would be. Layout: x [T, I], W_i [O_i, I], y_i [T, O_i], all
//! contiguous. Where it does not apply, the caller launches separate products.

use std::rc::Rc;

use lowrank_cpu::gemm::MAX_GEMV_ROWS;

use super::native;
use crate::context::{Context, Value};
use crate::kernel::{Access, Implementations, Kernel, Launch};
use crate::profile::Kind;
use crate::scalars;

scalars! {
    struct TwoProducts { m: usize, k: usize, n: [usize; 2] }
}

scalars! {
    struct ThreeProducts { m: usize, k: usize, n: [usize; 3] }
}

static TWO_PRODUCTS: Kernel = Kernel {
    name: "gemm_of_two",
    bindings: &[
        ("x", Access::Read),
        ("w0", Access::Read),
        ("w1", Access::Read),
        ("y0", Access::Write),
        ("y1", Access::Write),
    ],
    scalars: TwoProducts::members,
    implementations: Implementations::Native(|l| {
        let s: TwoProducts = l.scalars();
        native::gemm_together(l, s.m, s.k, s.n);
    }),
    variants: Vec::new,
};

static THREE_PRODUCTS: Kernel = Kernel {
    name: "gemm_of_three",
    bindings: &[
        ("x", Access::Read),
        ("w0", Access::Read),
        ("w1", Access::Read),
        ("w2", Access::Read),
        ("y0", Access::Write),
        ("y1", Access::Write),
        ("y2", Access::Write),
    ],
    scalars: ThreeProducts::members,
    implementations: Implementations::Native(|l| {
        let s: ThreeProducts = l.scalars();
        native::gemm_together(l, s.m, s.k, s.n);
    }),
    variants: Vec::new,
};

pub const KERNELS: &[&Kernel] = &[&TWO_PRODUCTS, &THREE_PRODUCTS];

/// Whether products of x by these weights can be one launch; more rows are multiplied in tiles.
pub fn can_multiply_together(cx: &Context, x: &Value, weights: &[&Value]) -> bool {
    let alike = weights.iter().all(|weight| weight.dtype == weights[0].dtype && weight.size() > 0);
    let few = (1..=MAX_GEMV_ROWS).contains(&x.shape.rows());
    cx.profile.kind == Kind::Cpu && few && alike && [2, 3].contains(&weights.len())
}

/// Appends y_i = x·W_iᵀ for weights for which `can_multiply_together` holds.
pub fn multiply_together(cx: &Rc<Context>, x: &Value, weights: &[&Value], ys: &[Value]) {
    debug_assert!(can_multiply_together(cx, x, weights));
    let (rows, features) = (x.shape.rows(), x.shape.last());
    let n = |i: usize| weights[i].shape[0];
    let total: usize = (0..weights.len()).map(n).sum();
    let (kernel, scalars) = match weights.len() {
        2 => (&TWO_PRODUCTS, TwoProducts { m: rows, k: features, n: [0, 1].map(n) }.words()),
        _ => (&THREE_PRODUCTS, ThreeProducts { m: rows, k: features, n: [0, 1, 2].map(n) }.words()),
    };
    cx.launch(Launch {
        kernel,
        params: [0; 4],
        bindings: [x].into_iter().chain(weights.iter().copied()).chain(ys).map(Value::range).collect(),
        scalars,
        groups: 1,
        threads: 1,
        work: 2 * (rows * features * total) as u64,
    });
}
