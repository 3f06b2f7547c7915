//! Cross-entropy of rows of V logits against one target each, and its gradient.
//!
//! Maths: with s the log-sum-exp of row x, t its target and e the label smoothing,
//! loss = s − x[t] + e (x[t] − mean x); d_x[j] = (e^(x[j] − s) − (1 − e) [j = t] − e/V) d / n. Layout: logits
//! [N, V]; targets, losses, s [N]; n, the number of trained rows, a scalar. One workgroup a row; the
//! losses are added up by one workgroup in a fixed order. A row whose target is `ignore` is 0, one
//! whose target is no column is NaN (and nothing is read past the row). Cost: one read of the logits
//! forward, one read and one write backward.

mod native;
mod plan;

pub use plan::{Labels, Scale, row_losses, row_losses_backward, row_losses_in_place, settle};

use crate::dtype::DType;
use crate::kernel::shader::{LOG_SUM, LOG_SUM_ROWS, WORKGROUP};
use crate::kernel::{Access, Kernel, Scalar, Twin, Variant, members_of};

const THREADS: u32 = 128;

static ROWS: Kernel = Kernel {
    name: "cross entropy",
    bindings: &[
        ("x", Access::Read),
        ("targets", Access::Read),
        ("loss", Access::Write),
        ("log_sum", Access::Write),
    ],
    scalars: || members_of(&[Scalar::U32("n"), Scalar::U32("ignore"), Scalar::F32("smoothing")]),
    twin: Twin::Both { wgsl: |_| by_rows(include_str!("rows.wgsl")), native: native::rows },
    variants: || variants(1, &[DType::F32, DType::I32, DType::F32, DType::F32]),
};
/// The loss of every row, with the gradient of their sum written over the logits: what a head that
/// never keeps its logits needs. Rows lie `stride` elements apart.
static IN_PLACE: Kernel = Kernel {
    name: "cross entropy in place",
    bindings: &[("x", Access::ReadWrite), ("targets", Access::Read), ("loss", Access::Write)],
    scalars: || {
        members_of(&[
            Scalar::U32("n"),
            Scalar::U32("ignore"),
            Scalar::F32("smoothing"),
            Scalar::U32("stride"),
        ])
    },
    twin: Twin::Both { wgsl: |_| by_rows(include_str!("in_place.wgsl")), native: native::in_place },
    variants: || variants(1, &[DType::F32, DType::I32, DType::F32]),
};
/// `params` = [1 where the sum is divided by the count].
static SETTLE: Kernel = Kernel {
    name: "cross entropy settle",
    bindings: &[
        ("losses", Access::Read),
        ("targets", Access::Read),
        ("y", Access::ReadWrite),
        ("count", Access::ReadWrite),
    ],
    scalars: || {
        members_of(&[Scalar::U32("rows"), Scalar::U32("ignore"), Scalar::U32("first"), Scalar::U32("last")])
    },
    twin: Twin::Both {
        wgsl: |params| {
            format!("const MEAN = {};\n{WORKGROUP}{}", params[0] == 1, include_str!("settle.wgsl"))
        },
        native: native::settle,
    },
    variants: || variants(2, &[DType::F32, DType::I32, DType::F32, DType::F32]),
};
/// `params` = [what scales a row: 0 d of its own, 1 one d, 2 one d over the count].
static BACKWARD: Kernel = Kernel {
    name: "cross entropy backward",
    bindings: &[
        ("x", Access::Read),
        ("targets", Access::Read),
        ("log_sum", Access::Read),
        ("d", Access::Read),
        ("count", Access::Read),
        ("d_x", Access::Write),
    ],
    scalars: || members_of(&[Scalar::U32("n"), Scalar::U32("ignore"), Scalar::F32("smoothing")]),
    twin: Twin::Both {
        wgsl: |params| format!("{LOG_SUM}const SCALE = {}u;\n{}", params[0], include_str!("backward.wgsl")),
        native: native::backward,
    },
    variants: || variants(3, &[DType::F32, DType::I32, DType::F32, DType::F32, DType::F32, DType::F32]),
};

pub const KERNELS: &[&Kernel] = &[&ROWS, &IN_PLACE, &SETTLE, &BACKWARD];

fn variants(forms: u32, dtypes: &[DType]) -> Vec<Variant> {
    (0..forms)
        .map(|form| Variant { params: [form, 0, 0, 0], dtypes: dtypes.to_vec(), threads: THREADS })
        .collect()
}

fn by_rows(body: &str) -> String {
    format!("{WORKGROUP}{LOG_SUM}{LOG_SUM_ROWS}{}{body}", include_str!("row.wgsl"))
}
