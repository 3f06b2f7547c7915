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

pub use plan::{
    Labels, Scale, append_loss_sum, append_row_losses, append_row_losses_backward, append_row_losses_in_place,
};

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
    struct LossScalars { rows: usize, ignore: i32, first: bool, last: bool, mean: bool }
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
        wgsl: |params| emit_row_kernel(ROWS.bindings, params, include_str!("rows.wgsl")),
        native: native::compute_row_losses,
    },
    variants: || list_variants(&[DType::F32, DType::I32, DType::F32, DType::F32], RowConfig::list()),
};
/// The loss of every row; overwrites the logits with the gradient of the losses' sum, for a head that does not keep its
/// logits. Rows have a stride of `stride` elements.
static IN_PLACE: Kernel = Kernel {
    name: "cross entropy in place",
    bindings: &[("x", Access::ReadWrite), ("targets", Access::Read), ("loss", Access::Write)],
    scalars: StridedRow::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_row_kernel(IN_PLACE.bindings, params, include_str!("in_place.wgsl")),
        native: native::compute_row_losses_in_place,
    },
    variants: || list_variants(&[DType::F32, DType::I32, DType::F32], RowConfig::list()),
};
static SUM_LOSSES: Kernel = Kernel {
    name: "cross entropy settle",
    bindings: &[
        ("losses", Access::Read),
        ("targets", Access::Read),
        ("y", Access::ReadWrite),
        ("count", Access::ReadWrite),
    ],
    scalars: LossScalars::members,
    implementations: Implementations::Both {
        wgsl: |_| [WORKGROUP, include_str!("settle.wgsl")].concat(),
        native: native::sum_losses,
    },
    variants: || list_variants(&[DType::F32, DType::I32, DType::F32, DType::F32], [SINGLE]),
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
            let cells = RowConfig::from_param(params[0]).emit_cells(BACKWARD.bindings, &["x", "d_x"]);
            cells + include_str!("backward.wgsl")
        },
        native: native::backward,
    },
    variants: || {
        let dtypes = [DType::F32, DType::I32, DType::F32, DType::F32, DType::F32, DType::F32];
        list_variants(&dtypes, RowConfig::list().filter(|config| !config.subgroups))
    },
};

pub const KERNELS: &[&Kernel] = &[&ROWS, &IN_PLACE, &SUM_LOSSES, &BACKWARD];

const SINGLE: RowConfig = RowConfig { vectors: false, subgroups: false };

fn list_variants(dtypes: &[DType], configs: impl IntoIterator<Item = RowConfig>) -> Vec<Variant> {
    let make_variant = |config: RowConfig| Variant {
        params: [config.param(), 0, 0, 0],
        dtypes: dtypes.to_vec(),
        threads: THREADS,
    };
    configs.into_iter().map(make_variant).collect()
}

fn emit_row_kernel(bindings: &[(&'static str, Access)], params: Params, body: &str) -> String {
    let config = RowConfig::from_param(params[0]);
    [&config.emit_cells(bindings, &["x"]), &config.emit_log_sum(), include_str!("row.wgsl"), body].concat()
}
