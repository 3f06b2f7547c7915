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
//! Rows that are whole vectors of four are read by them.

mod native;
mod plan;

pub use plan::{Residual, Rows, Sums, Weights, normalise, normalise_backward, sum_rows};

use crate::dtype::DType;
use crate::kernel::shader::WORKGROUP;
use crate::kernel::{Access, Kernel, Params, Scalar, Twin, Variant, joined, members_of};
use crate::kernels::elementwise::wide;

/// Invocations of a row's workgroup.
const THREADS: u32 = 128;
/// Rows whose contributions to d_weight one invocation adds up.
const CHUNK: usize = 32;

/// In `params[3]`: rows are read by vectors of four.
const WIDE: u32 = 2;

/// `params` = [1 with a mean, 1 with a weight, 1 with a bias (backward: where d_x is added to), 1 where
/// something is added to x first, or `WIDE`, or both]; an absent binding stands on another.
const FORWARD: Kernel = Kernel {
    name: "norm",
    bindings: &[
        ("x", Access::Read),
        ("weight", Access::Read),
        ("bias", Access::Read),
        ("y", Access::Write),
        ("scale", Access::Write),
    ],
    scalars: || members_of(&[Scalar::U32("n"), Scalar::F32("eps")]),
    twin: Twin::Both {
        wgsl: |params| forward_wgsl(FORWARD.bindings, params, NO_MEAN),
        native: native::forward,
    },
    variants: || variants(&[0, 1, 1, 0, 0], 0),
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
    variants: || variants(&[0, 1, 1, 0, 0, 0], 0),
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
    variants: || variants(&[0, 1, 1, 0, 0, 0, 0], 1),
    ..FORWARD
};
static ADDED_LAYER_NORM: Kernel = Kernel {
    name: "added layer norm",
    bindings: &joined::<_, 8>(WITH_MEAN.bindings, ADDED),
    twin: Twin::Both {
        wgsl: |params| forward_wgsl(ADDED_LAYER_NORM.bindings, params, MEAN),
        native: native::forward,
    },
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
    scalars: || members_of(&[Scalar::U32("n")]),
    twin: Twin::Both {
        wgsl: |params| match params[3] & WIDE {
            0 => wgsl(params, include_str!("backward.wgsl")),
            _ => wgsl(params, include_str!("backward_wide.wgsl")) + &vectors(BACKWARD.bindings, params),
        },
        native: native::backward,
    },
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
    scalars: || members_of(&[Scalar::U32("n"), Scalar::U32("rows"), Scalar::U32("chunk")]),
    twin: Twin::Both { wgsl: |params| wgsl(params, include_str!("sums.wgsl")), native: native::sums },
    variants: || variants(&[0, 0, 0, 0, 0], 0),
};

pub const KERNELS: &[&Kernel] = &[&NORM, &LAYER_NORM, &ADDED_NORM, &ADDED_LAYER_NORM, &BACKWARD, &SUM_ROWS];

/// Every choice of what is there, with weights (marked 1) in every float type.
fn variants(weights: &[u32], added: u32) -> Vec<Variant> {
    let types: &[DType] =
        if weights.contains(&1) { &[DType::F32, DType::F16, DType::BF16] } else { &[DType::F32] };
    // Vectors are of f32.
    let wides = |t: &DType| if *t == DType::F32 && weights.contains(&1) { &[0, WIDE][..] } else { &[0] };
    types
        .iter()
        .flat_map(|t| {
            wides(t).iter().flat_map(move |wide| (0..8u32).map(move |bits| (t, bits, added | wide)))
        })
        .map(|(t, bits, last)| (t, [bits & 1, bits >> 1 & 1, bits >> 2, last]))
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

/// The same by vectors.
const X4_ALONE: &str = "fn first_x4(i: u32) -> vec4<f32> { return load4_x(i); }
fn x4_again(i: u32) -> vec4<f32> { return load4_x(i); }
";
const SUM4: &str = "fn first_x4(i: u32) -> vec4<f32> {
  let x = load4_x(i);
  let added = load4_added(i);
  let v = select(x + added, vec4<f32>(nan()), nans4(x) | nans4(added));
  store4_sum(i, v);
  return v;
}
fn x4_again(i: u32) -> vec4<f32> { return load4_sum(i); }
";

fn forward_wgsl(bindings: &[(&'static str, Access)], params: Params, mean: &str) -> String {
    let added = params[3] & 1 == 1;
    if params[3] & WIDE == 0 {
        return wgsl(params, include_str!("norm.wgsl")) + mean + if added { SUM } else { X_ALONE };
    }
    let x = if added { SUM4 } else { X4_ALONE };
    wgsl(params, include_str!("norm_wide.wgsl")) + mean + x + &vectors(bindings, params)
}

/// What loads and stores vectors of all bindings but those with an element a row; of one that is absent
/// nothing is bound that is long enough.
fn vectors(bindings: &[(&'static str, Access)], params: Params) -> String {
    let all = bindings.iter().enumerate().filter(|(_, (name, _))| !is_single(name));
    let of = |(i, (name, access)): (usize, &(&'static str, Access))| match is_absent(name, params) {
        true => format!("fn load4_{name}(i: u32) -> vec4<f32> {{ return vec4<f32>(); }}\n"),
        false => wide::vectors(name, i, *access != Access::Read),
    };
    all.map(of).collect()
}

fn is_absent(name: &str, params: Params) -> bool {
    name == "weight" && params[1] == 0 || name == "bias" && params[2] == 0
}

fn is_single(name: &str) -> bool {
    ["scale", "mean"].contains(&name)
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
