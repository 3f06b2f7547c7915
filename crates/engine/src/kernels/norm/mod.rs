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
//! reading comes from the cache), so memory binds; some 20 registers and 0.5 KiB of workgroup memory
//! for 128 invocations limit nothing. No register tile: a row of C elements is C / 128 an invocation.

mod cpu;
mod plan;

pub use plan::{Residual, Rows, Sums, Weights, normalise, normalise_backward, sum_rows};

use crate::device::Profile;
use crate::dtype::DType;
use crate::kernel::{Access, Kernel, Params, Scalar, Variant, joined};
use crate::kernels::numeric::WORKGROUP;

const THREADS: u32 = 128;

/// Invocations of a row's workgroup. Where they run in software, one vector of them: more would wait for one another at
/// every sum of a row.
fn threads(profile: &Profile) -> u32 {
    if profile.software && profile.subgroup > 0 { profile.subgroup } else { THREADS }
}
/// Rows whose contributions to d_weight one invocation adds up.
const CHUNK: usize = 32;

/// `params` = [1 with a mean, 1 with a weight, 1 with a bias (backward: where d_x is added to), 1 where
/// something is added to x first]; an absent binding stands on another.
const FORWARD: Kernel = Kernel {
    name: "norm",
    bindings: &[
        ("x", Access::Read),
        ("weight", Access::Read),
        ("bias", Access::Read),
        ("y", Access::Write),
        ("scale", Access::Write),
    ],
    scalars: &[Scalar::U32("n"), Scalar::F32("eps")],
    wgsl: |params| forward_wgsl(params, NO_MEAN, X_ALONE),
    cpu: cpu::forward,
    variants: || variants(&[0, 1, 1, 0, 0], 0),
};
static NORM: Kernel = FORWARD;
/// The form that keeps a mean.
const WITH_MEAN: Kernel = Kernel {
    name: "layer norm",
    bindings: &joined::<_, 6>(FORWARD.bindings, &[("mean", Access::Write)]),
    wgsl: |params| forward_wgsl(params, MEAN, X_ALONE),
    variants: || variants(&[0, 1, 1, 0, 0, 0], 0),
    ..FORWARD
};
static LAYER_NORM: Kernel = WITH_MEAN;
const ADDED: &[(&str, Access)] = &[("added", Access::Read), ("sum", Access::Write)];
static ADDED_NORM: Kernel = Kernel {
    name: "added norm",
    bindings: &joined::<_, 7>(FORWARD.bindings, ADDED),
    wgsl: |params| forward_wgsl(params, NO_MEAN, SUM),
    variants: || variants(&[0, 1, 1, 0, 0, 0, 0], 1),
    ..FORWARD
};
static ADDED_LAYER_NORM: Kernel = Kernel {
    name: "added layer norm",
    bindings: &joined::<_, 8>(WITH_MEAN.bindings, ADDED),
    wgsl: |params| forward_wgsl(params, MEAN, SUM),
    variants: || variants(&[0, 1, 1, 0, 0, 0, 0, 0], 1),
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
    scalars: &[Scalar::U32("n")],
    wgsl: |params| wgsl(params, include_str!("backward.wgsl")),
    cpu: cpu::backward,
    variants: || variants(&[0, 1, 0, 0, 0, 0], 0),
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
    scalars: &[Scalar::U32("n"), Scalar::U32("rows"), Scalar::U32("chunk")],
    wgsl: |params| wgsl(params, include_str!("sums.wgsl")),
    cpu: cpu::sums,
    variants: || variants(&[0, 0, 0, 0, 0], 0),
};

pub const KERNELS: &[&Kernel] = &[&NORM, &LAYER_NORM, &ADDED_NORM, &ADDED_LAYER_NORM, &BACKWARD, &SUM_ROWS];

/// Every choice of what is there, with weights (marked 1) in every float type.
fn variants(weights: &[u32], added: u32) -> Vec<Variant> {
    let types: &[DType] =
        if weights.contains(&1) { &[DType::F32, DType::F16, DType::BF16] } else { &[DType::F32] };
    types
        .iter()
        .flat_map(|t| (0..8u32).map(move |bits| (t, [bits & 1, bits >> 1 & 1, bits >> 2, added])))
        .map(|(t, params)| Variant {
            params,
            dtypes: weights
                .iter()
                .enumerate()
                .map(|(i, w)| if *w == 1 && params[i] == 1 { *t } else { DType::F32 })
                .collect(),
            threads: THREADS,
        })
        .collect()
}

const NO_MEAN: &str = "fn keep_mean(row: u32, mean: f32) {}\n";
const MEAN: &str = "fn keep_mean(row: u32, mean: f32) { store_mean(row, mean); }\n";
/// How an element is read first, and then again.
const X_ALONE: &str = "fn first_x(i: u32) -> f32 { return load_x(i); }
fn x_again(i: u32) -> f32 { return load_x(i); }
";
const SUM: &str = "fn first_x(i: u32) -> f32 {
  let x = load_x(i);
  let added = load_added(i);
  var v = x + added;
  if is_nan(x) || is_nan(added) { v = nan(); }
  store_sum(i, v);
  return v;
}
fn x_again(i: u32) -> f32 { return load_sum(i); }
";

fn forward_wgsl(params: Params, mean: &str, x: &str) -> String {
    wgsl(params, include_str!("norm.wgsl")) + mean + x
}

fn wgsl(params: Params, body: &str) -> String {
    let truth = |i: usize| params[i] == 1;
    format!(
        "const MEAN = {};\nconst WEIGHT = {};\nconst BIAS = {};\nconst ADDS = BIAS;\n{WORKGROUP}\n{}",
        truth(0),
        truth(1),
        truth(2),
        body
    )
}
