//! Cross-entropy of rows of V logits against one target each, and its gradient.
//!
//! Maths: with s the log-sum-exp of row x, t its target and e the label smoothing,
//! loss = s − x[t] + e (x[t] − mean x); d_x[j] = (e^(x[j] − s) − (1 − e) [j = t] − e/V) d / n.
//! Layout: logits [N, V]; targets, losses, s [N]; n, the number of trained rows, a scalar. One workgroup per row; one
//! workgroup adds the losses in a fixed order. A row with the target `ignore` has loss 0; a row with a target outside
//! of 0..V has NaN (and nothing is read past the row).
//! Cost: one read of the logits forward, one read and one write backward.
//!
//! Counted from the shaders: 1.25 exponentials for 4 bytes of logits if rows are read in vectors (otherwise 2), and one
//! for 8 bytes backward: bound by memory. A row's sums use subgroups if available, with 4 barriers instead of 18, in an
//! order that depends on the device.

mod native;
mod plan;
#[cfg(test)]
pub(crate) mod tests;

pub use plan::{Labels, Scale, row_losses, row_losses_backward, row_losses_in_place, settle};

use crate::dtype::DType;
use crate::kernel::shader::WORKGROUP;
use crate::kernel::shader::rows::RowConfig;
use crate::kernel::{Access, Implementations, Kernel, Params, Variant};
use crate::scalars;

const THREADS: u32 = 128;

scalars! {
    struct Row { n: usize, ignore: i32, smoothing: f32 }
}
scalars! {
    struct StridedRow { row: Row, stride: usize }
}
scalars! {
    struct ScaledRow { row: Row, scaling: u32 }
}
scalars! {
    struct Settled { rows: usize, ignore: i32, first: bool, last: bool, mean: bool }
}

/// `params` = [`RowConfig`].
static ROWS: Kernel = Kernel {
    name: "cross entropy",
    bindings: &[
        ("x", Access::Read),
        ("targets", Access::Read),
        ("loss", Access::Write),
        ("log_sum", Access::Write),
    ],
    scalars: Row::members,
    implementations: Implementations::Both {
        wgsl: |params| by_rows(ROWS.bindings, params, include_str!("rows.wgsl")),
        native: native::rows,
    },
    variants: || variants(&[DType::F32, DType::I32, DType::F32, DType::F32], RowConfig::all()),
};
/// The loss of every row; overwrites the logits with the gradient of the losses' sum, for a head that does not keep its
/// logits. Rows have a stride of `stride` elements.
static IN_PLACE: Kernel = Kernel {
    name: "cross entropy in place",
    bindings: &[("x", Access::ReadWrite), ("targets", Access::Read), ("loss", Access::Write)],
    scalars: StridedRow::members,
    implementations: Implementations::Both {
        wgsl: |params| by_rows(IN_PLACE.bindings, params, include_str!("in_place.wgsl")),
        native: native::in_place,
    },
    variants: || variants(&[DType::F32, DType::I32, DType::F32], RowConfig::all()),
};
static SETTLE: Kernel = Kernel {
    name: "cross entropy settle",
    bindings: &[
        ("losses", Access::Read),
        ("targets", Access::Read),
        ("y", Access::ReadWrite),
        ("count", Access::ReadWrite),
    ],
    scalars: Settled::members,
    implementations: Implementations::Both {
        wgsl: |_| [WORKGROUP, include_str!("settle.wgsl")].concat(),
        native: native::settle,
    },
    variants: || variants(&[DType::F32, DType::I32, DType::F32, DType::F32], [SINGLE]),
};
/// Reads rows by single elements or vectors; no reduction.
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
    scalars: ScaledRow::members,
    implementations: Implementations::Both {
        wgsl: |params| {
            let cells = RowConfig::of(params[0]).cells(BACKWARD.bindings, &["x", "d_x"]);
            cells + include_str!("backward.wgsl")
        },
        native: native::backward,
    },
    variants: || {
        let dtypes = [DType::F32, DType::I32, DType::F32, DType::F32, DType::F32, DType::F32];
        variants(&dtypes, RowConfig::all().filter(|config| !config.subgroups))
    },
};

pub const KERNELS: &[&Kernel] = &[&ROWS, &IN_PLACE, &SETTLE, &BACKWARD];

const SINGLE: RowConfig = RowConfig { vectors: false, subgroups: false };

fn variants(dtypes: &[DType], configs: impl IntoIterator<Item = RowConfig>) -> Vec<Variant> {
    let of = |config: RowConfig| Variant {
        params: [config.param(), 0, 0, 0],
        dtypes: dtypes.to_vec(),
        threads: THREADS,
    };
    configs.into_iter().map(of).collect()
}

fn by_rows(bindings: &[(&'static str, Access)], params: Params, body: &str) -> String {
    let config = RowConfig::of(params[0]);
    [&config.cells(bindings, &["x"]), &config.log_sum(), include_str!("row.wgsl"), body].concat()
}
