//! Root-mean-square and layer normalisation of rows of C elements, and their gradients.
//!
//! Maths: x̂ = (x − μ) ρ with ρ = 1 / √(mean (x − μ)² + ε), y = w x̂ + b; μ = 0 for the root-mean-square
//! form. With g = w d: d_x = ρ (g − mean g − x̂ mean(g x̂)), without the middle term where μ = 0;
//! d_w = Σ d x̂ and d_b = Σ d over the rows. Layout: x, y, d, d_x [rows, C]; w, b [C]; μ, ρ [rows]. One
//! workgroup a row. The sums over rows go by chunks of 32 rows, which are then reduced: the order is
//! fixed by shape (and where a binding is short, by its limit). Cost: two reads of x forward (three
//! where μ is asked for), two of x and d backward. A row with a NaN is NaN throughout.
//!
//! Where a residual is added first, x is the sum, which is written too: a pass less than adding apart, and
//! the same bits.
//!
//! Counted from the shaders: 6 FLOPs for 8 bytes of memory forward, 10 for 12 backward (a row's second
//! reading comes from the cache), so memory binds; some 20 registers and at most 1 KiB of workgroup memory
//! for 128 invocations limit nothing. No register tile: a row of C elements is C / 128 an invocation.
//! Rows that are whole vectors of four are read by them. A row's sums go through subgroups where there are: a sum of 128
//! invocations is then 2 barriers, not 9, in an order that is the device's own (the same in every run on it).
//! What a form is compiled for is how rows are read and summed and what weights are stored in; which of weight, bias and
//! mean there are is asked at run time, once an element beside 8 bytes from memory.

mod native;
mod plan;
#[cfg(test)]
pub(crate) mod tests;

pub use plan::{Residual, Rows, Sums, Weights, normalise, normalise_backward, sum_rows};

use crate::dtype::DType;
use crate::kernel::shader::rows::RowForm;
use crate::kernel::{Access, Kernel, Params, Twin, Variant, joined};
use crate::scalars;

/// Invocations of a row's workgroup.
const THREADS: u32 = 128;
/// Rows whose contributions to d_weight one invocation adds up.
const CHUNK: usize = 32;

scalars! {
    struct Forward { n: usize, eps: f32, centred: bool, weighted: bool, biased: bool, added: bool }
}
scalars! {
    struct Backward { n: usize, centred: bool, weighted: bool, adds: bool }
}
scalars! {
    /// Sums over chunks of `chunk` of the rows.
    struct Chunks { n: usize, rows: usize, chunk: usize, centred: bool, weighted: bool }
}

/// `params` = [`RowForm`]; an absent binding stands on another.
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
    twin: Twin::Both {
        wgsl: |params| forward_wgsl(FORWARD.bindings, params, NO_MEAN),
        native: native::forward,
    },
    variants: || variants(FORWARD.bindings),
};
static NORM: Kernel = FORWARD;
/// The form that keeps a mean.
const WITH_MEAN: Kernel = Kernel {
    name: "layer norm",
    bindings: &joined::<_, 6>(FORWARD.bindings, &[("mean", Access::Write)]),
    twin: Twin::Both {
        wgsl: |params| forward_wgsl(WITH_MEAN.bindings, params, MEAN),
        native: native::forward,
    },
    variants: || variants(WITH_MEAN.bindings),
    ..FORWARD
};
static LAYER_NORM: Kernel = WITH_MEAN;
const ADDED: &[(&str, Access)] = &[("added", Access::Read), ("sum", Access::Write)];
static ADDED_NORM: Kernel = Kernel {
    name: "added norm",
    bindings: &joined::<_, 7>(FORWARD.bindings, ADDED),
    twin: Twin::Both {
        wgsl: |params| forward_wgsl(ADDED_NORM.bindings, params, NO_MEAN),
        native: native::forward,
    },
    variants: || variants(ADDED_NORM.bindings),
    ..FORWARD
};
static ADDED_LAYER_NORM: Kernel = Kernel {
    name: "added layer norm",
    bindings: &joined::<_, 8>(WITH_MEAN.bindings, ADDED),
    twin: Twin::Both {
        wgsl: |params| forward_wgsl(ADDED_LAYER_NORM.bindings, params, MEAN),
        native: native::forward,
    },
    variants: || variants(ADDED_LAYER_NORM.bindings),
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
    twin: Twin::Both {
        wgsl: |params| {
            let form = RowForm::of(params[0]);
            let cells = form.cells(BACKWARD.bindings, &["x", "weight", "d", "d_x"]);
            [form.workgroup(), &cells, include_str!("backward.wgsl")].concat()
        },
        native: native::backward,
    },
    variants: || variants(BACKWARD.bindings),
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
    twin: Twin::Both { wgsl: |_| include_str!("sums.wgsl").into(), native: native::sums },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![DType::F32; 5], threads: THREADS }],
};

pub const KERNELS: &[&Kernel] = &[&NORM, &LAYER_NORM, &ADDED_NORM, &ADDED_LAYER_NORM, &BACKWARD, &SUM_ROWS];

/// Every form of a row, with weights in every float type where they are read by single elements: vectors are of f32.
fn variants(bindings: &[(&'static str, Access)]) -> Vec<Variant> {
    let weights = |form: &RowForm| match form.vectors {
        true => &[DType::F32][..],
        false => &[DType::F32, DType::F16, DType::BF16],
    };
    let of = |(form, weight): (RowForm, DType)| Variant {
        params: [form.param(), 0, 0, 0],
        dtypes: bindings.iter().map(|(name, _)| if is_weight(name) { weight } else { DType::F32 }).collect(),
        threads: THREADS,
    };
    RowForm::all().flat_map(|form| weights(&form).iter().map(move |t| (form, *t))).map(of).collect()
}

const NO_MEAN: &str = "const MEAN = false;\nfn keep_mean(row: u32, mean: f32) {}\n";
const MEAN: &str = "const MEAN = true;\nfn keep_mean(row: u32, mean: f32) { store_mean(row, mean); }\n";
/// How a cell is read first, and then again.
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

fn forward_wgsl(bindings: &[(&'static str, Access)], params: Params, mean: &str) -> String {
    let form = RowForm::of(params[0]);
    let names: Vec<&str> = bindings.iter().map(|(name, _)| *name).filter(|name| !is_single(name)).collect();
    let x = if names.contains(&"sum") { SUM } else { X_ALONE };
    [form.workgroup(), &form.cells(bindings, &names), mean, x, include_str!("norm.wgsl")].concat()
}

fn is_weight(name: &str) -> bool {
    ["weight", "bias"].contains(&name)
}

/// Whether a binding has an element a row.
fn is_single(name: &str) -> bool {
    ["scale", "mean"].contains(&name)
}
