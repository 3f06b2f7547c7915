//! Root-mean-square and layer normalisation of rows of C elements, and their gradients.
//!
//! Maths: x̂ = (x − μ) ρ with ρ = 1 / √(mean (x − μ)² + ε), y = w x̂ + b; μ = 0 for root-mean-square. With g = w d:
//! d_x = ρ (g − mean g − x̂ mean(g x̂)), without the middle term if μ = 0; d_w = Σ d x̂ and d_b = Σ d over the rows.
//! Layout: x, y, d, d_x [rows, C]; w, b [C]; μ, ρ [rows]. One workgroup per row. Sums over rows are computed for chunks
//! of 32 rows, which are then reduced: the order depends only on the shape (and on the binding limit, if that is
//! small).
//! Cost: two reads of x forward (three with μ), two of x and d backward. A row with a NaN is NaN throughout.
//!
//! With a residual, x is the sum, which is also written: one pass less than a separate addition, and the same bits.
//!
//! Counted from the shaders: 6 FLOPs for 8 bytes of memory forward, 10 for 12 backward (a row's second read is served
//! by the cache), so it is bound by memory; about 20 registers and at most 1 KiB of workgroup memory for 128
//! invocations are no limit. There is no register tile: an invocation has C / 128 elements of a row. Rows that consist
//! of whole vectors of four are read in vectors. A row's sums use subgroups if available: then a sum of 128 invocations
//! has 2 barriers instead of 9, in an order that depends on the device (but is the same in every run). A variant
//! determines how rows are read and summed and the weights' dtype. The presence of weight, bias and mean is checked at
//! run time, once per element, compared with 8 bytes from memory.

mod native;
mod plan;
#[cfg(test)]
pub(crate) mod tests;

pub use plan::{Residual, RowStatistics, RowSum, Weights, normalise, normalise_backward, sum_rows};

use crate::dtype::DType;
use crate::kernel::shader::rows::RowConfig;
use crate::kernel::{Access, Implementations, Kernel, Params, Variant, concat};
use crate::scalars;

/// Invocations in a row's workgroup.
const THREADS: u32 = 128;
/// Rows whose contributions to d_weight one invocation adds.
const CHUNK: usize = 32;

scalars! {
    struct Forward { n: usize, eps: f32, centred: bool, weighted: bool, biased: bool, added: bool }
}
scalars! {
    struct Backward { n: usize, centred: bool, weighted: bool, adds: bool }
}
scalars! {
    /// Sums over chunks of `chunk` rows.
    struct Chunks { n: usize, rows: usize, chunk: usize, centred: bool, weighted: bool }
}

/// `params` = [`RowConfig`]; an absent binding is bound to another one.
const FORWARD: Kernel = Kernel {
    name: "norm",
    bindings: &[
        ("x", Access::Read),
        ("weight", Access::Read),
        ("bias", Access::Read),
        ("y", Access::Write),
        ("scale", Access::Write),
    ],
    scalars: Forward::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_forward(FORWARD.bindings, params, NO_MEAN),
        native: native::forward,
    },
    variants: || list_variants(FORWARD.bindings),
};
static NORM: Kernel = FORWARD;
/// The kernel that stores a mean.
const WITH_MEAN: Kernel = Kernel {
    name: "layer norm",
    bindings: &concat::<_, 6>(FORWARD.bindings, &[("mean", Access::Write)]),
    implementations: Implementations::Both {
        wgsl: |params| emit_forward(WITH_MEAN.bindings, params, MEAN),
        native: native::forward,
    },
    variants: || list_variants(WITH_MEAN.bindings),
    ..FORWARD
};
static LAYER_NORM: Kernel = WITH_MEAN;
const ADDED: &[(&str, Access)] = &[("added", Access::Read), ("sum", Access::Write)];
static ADDED_NORM: Kernel = Kernel {
    name: "added norm",
    bindings: &concat::<_, 7>(FORWARD.bindings, ADDED),
    implementations: Implementations::Both {
        wgsl: |params| emit_forward(ADDED_NORM.bindings, params, NO_MEAN),
        native: native::forward,
    },
    variants: || list_variants(ADDED_NORM.bindings),
    ..FORWARD
};
static ADDED_LAYER_NORM: Kernel = Kernel {
    name: "added layer norm",
    bindings: &concat::<_, 8>(WITH_MEAN.bindings, ADDED),
    implementations: Implementations::Both {
        wgsl: |params| emit_forward(ADDED_LAYER_NORM.bindings, params, MEAN),
        native: native::forward,
    },
    variants: || list_variants(ADDED_LAYER_NORM.bindings),
    ..FORWARD
};
static BACKWARD: Kernel = Kernel {
    name: "norm backward",
    bindings: &[
        ("x", Access::Read),
        ("weight", Access::Read),
        ("scale", Access::Read),
        ("mean", Access::Read),
        ("d", Access::Read),
        ("d_x", Access::ReadWrite),
    ],
    scalars: Backward::members,
    implementations: Implementations::Both {
        wgsl: |params| {
            let config = RowConfig::from_param(params[0]);
            let cells = config.emit_cells(BACKWARD.bindings, &["x", "weight", "d", "d_x"]);
            [config.workgroup(), &cells, include_str!("backward.wgsl")].concat()
        },
        native: native::backward,
    },
    variants: || list_variants(BACKWARD.bindings),
};
static SUM_ROWS: Kernel = Kernel {
    name: "norm sums",
    bindings: &[
        ("x", Access::Read),
        ("scale", Access::Read),
        ("mean", Access::Read),
        ("d", Access::Read),
        ("y", Access::Write),
    ],
    scalars: Chunks::members,
    implementations: Implementations::Both {
        wgsl: |_| include_str!("sums.wgsl").into(),
        native: native::sum_rows,
    },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::F32; 5], threads: THREADS }],
};

pub const KERNELS: &[&Kernel] = &[&NORM, &LAYER_NORM, &ADDED_NORM, &ADDED_LAYER_NORM, &BACKWARD, &SUM_ROWS];

/// The properties of a variant in words; none if the kernel has one variant.
pub fn describe(kernel: &Kernel, params: Params) -> Vec<String> {
    if kernel.name == SUM_ROWS.name {
        return Vec::new();
    }
    let RowConfig { vectors, subgroups } = RowConfig::from_param(params[0]);
    let loads = if vectors { "vector loads" } else { "scalar loads" };
    vec![loads.into(), if subgroups { "sums by subgroups" } else { "sums in shared memory" }.into()]
}

/// Every variant of a row kernel. With single elements weights have any float type; with vectors they are f32.
fn list_variants(bindings: &[(&'static str, Access)]) -> Vec<Variant> {
    let weights = |config: &RowConfig| match config.vectors {
        true => &[DType::F32][..],
        false => &[DType::F32, DType::F16, DType::BF16],
    };
    let make_variant = |(config, weight): (RowConfig, DType)| Variant {
        params: [config.param(), 0, 0, 0],
        dtypes: bindings.iter().map(|(name, _)| if is_weight(name) { weight } else { DType::F32 }).collect(),
        threads: THREADS,
    };
    RowConfig::list()
        .flat_map(|config| weights(&config).iter().map(move |t| (config, *t)))
        .map(make_variant)
        .collect()
}

const NO_MEAN: &str = "const MEAN = false;\nfn keep_mean(row: u32, mean: f32) {}\n";
const MEAN: &str = "const MEAN = true;\nfn keep_mean(row: u32, mean: f32) { store_mean(row, mean); }\n";
/// The functions of the first and of later reads of a cell.
const X_ALONE: &str = "fn first_x(i: u32) -> Cell { return get_x(i); }
fn x_again(i: u32) -> Cell { return get_x(i); }
";
const SUM: &str = "fn first_x(i: u32) -> Cell {
  let x = get_x(i);
  let added = get_added(i);
  let v = select(x + added, Cell(nan()), nans(x) | nans(added));
  put_sum(i, v);
  return v;
}
fn x_again(i: u32) -> Cell { return get_sum(i); }
";

fn emit_forward(bindings: &[(&'static str, Access)], params: Params, mean: &str) -> String {
    let config = RowConfig::from_param(params[0]);
    let names: Vec<&str> = bindings.iter().map(|(name, _)| *name).filter(|name| !is_single(name)).collect();
    let x = if names.contains(&"sum") { SUM } else { X_ALONE };
    [config.workgroup(), &config.emit_cells(bindings, &names), mean, x, include_str!("norm.wgsl")].concat()
}

fn is_weight(name: &str) -> bool {
    ["weight", "bias"].contains(&name)
}

/// Whether a binding has one element per row.
fn is_single(name: &str) -> bool {
    ["scale", "mean"].contains(&name)
}
