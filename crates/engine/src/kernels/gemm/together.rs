//! Dense products of one input of few rows by two or three weights, on the processor in one launch: threads
//! meet once where they would two or three times, which decoding waits for.
//!
//! Maths: y_i = x·W_iᵀ, each summed as by itself. Layout: x [T, I], W_i [O_i, I], y_i [T, O_i], all
//! contiguous. Where it does not fit, the caller launches them apart.

use std::rc::Rc;

use smallvec::SmallVec;

use super::native;
use crate::context::Context;
use crate::device::Kind;
use crate::kernel::{Access, Kernel, Scalar, Twin, members_of};
use crate::recording::Launch;
use crate::value::Value;

static OF_TWO: Kernel = Kernel {
    name: "gemm_of_two",
    bindings: &[
        ("x", Access::Read),
        ("w0", Access::Read),
        ("w1", Access::Read),
        ("y0", Access::Write),
        ("y1", Access::Write),
    ],
    scalars: || members_of(&[Scalar::U32("m"), Scalar::U32("k"), Scalar::U32("n0"), Scalar::U32("n1")]),
    twin: Twin::Native(native::gemm_together::<2>),
    variants: Vec::new,
};

static OF_THREE: Kernel = Kernel {
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
    scalars: || {
        members_of(&[
            Scalar::U32("m"),
            Scalar::U32("k"),
            Scalar::U32("n0"),
            Scalar::U32("n1"),
            Scalar::U32("n2"),
        ])
    },
    twin: Twin::Native(native::gemm_together::<3>),
    variants: Vec::new,
};

pub const KERNELS: &[&Kernel] = &[&OF_TWO, &OF_THREE];

/// Whether products of x by these weights are one launch: more rows are multiplied in tiles.
pub fn goes_together(cx: &Context, x: &Value, weights: &[&Value]) -> bool {
    let alike = weights.iter().all(|weight| weight.dtype == weights[0].dtype && weight.size() > 0);
    let few = (1..=native::FEW).contains(&x.shape.rows());
    cx.profile.kind == Kind::Cpu && few && alike && [2, 3].contains(&weights.len())
}

/// Appends y_i = x·W_iᵀ for weights that go together.
pub fn dense_together(cx: &Rc<Context>, x: &Value, weights: &[&Value], ys: &[Value]) {
    debug_assert!(goes_together(cx, x, weights));
    let (rows, features) = (x.shape.rows(), x.shape.last());
    let outputs = weights.iter().map(|weight| weight.shape[0]);
    let total: usize = outputs.clone().sum();
    cx.launch(Launch {
        kernel: if weights.len() == 2 { &OF_TWO } else { &OF_THREE },
        params: [0; 4],
        bindings: [x].into_iter().chain(weights.iter().copied()).chain(ys).map(Value::range).collect(),
        scalars: [rows, features].into_iter().chain(outputs).map(|n| n as u32).collect::<SmallVec<_>>(),
        groups: 1,
        threads: 1,
        work: 2 * (rows * features * total) as u64,
    });
}
