//! Attention without storing the score matrix: softmax(scale · Q Kᵀ) V and its gradients, tile by tile.
//!
//! Maths: S = scale · q kᵀ where the query sees the key, L = log Σ exp S, o = Σ exp(S − L) v. Backward computes
//! P = exp(S − L) again: dv = Pᵀ do, δ = Σ do ∘ o, dS = P ∘ (do vᵀ − δ), dq = scale · dS k, dk = scale · dSᵀ q.
//! Layout: q, o [B, T, H, D]; k, v [B, S, Hkv, D], with the first `length` keys in use; L and δ [B, T, H], so that
//! windows of rows are contiguous. With heads first, all have heads before rows; rows and heads have strides. Query
//! head h reads key/value head h / (H / Hkv).
//! Dropout: a mask multiplies the weights; it depends on their positions and is computed again in backward
//! (`lowrank_cpu::attention`).
//! Keys that no query of a tile sees are skipped. Hidden scores are −3.4e38.
//! Cost: 4·T·S·D·H flops forward and 10·T·S·D·H backward (14 on a GPU, since both kernels compute S); half of that if
//! causal; memory O(T). Windows of keys are merged through (o, L) in the outputs.
//! Shaders: shader.rs. CPU implementations: native.rs.
//! Source: Dao, FlashAttention-2, arXiv 2307.08691.

mod config;
mod geometry;
mod native;
mod plan;
mod shader;
#[cfg(test)]
pub(crate) mod tests;
mod tile;

pub use config::describe;
pub use geometry::Sizes;
pub use lowrank_cpu::attention::DIM;
pub use plan::{AttentionCall, BackwardInputs, Dropout, backward, forward};

use crate::dtype::DType;
use crate::kernel::{Access, Implementations, Kernel, Variant, concat, scalars};
use crate::scalars;
use config::{CLASSES, Config, Decode};
use geometry::Dropped;
use lowrank_cpu::attention::Geometry;

const F: DType = DType::F32;
const I: DType = DType::I32;

const BINDINGS: [(&str, Access); 8] = [
    ("q", Access::Read),
    ("k", Access::Read),
    ("v", Access::Read),
    ("query_segment", Access::Read),
    ("key_segment", Access::Read),
    ("mask", Access::Read),
    ("o", Access::ReadWrite),
    ("lse", Access::ReadWrite),
];
const DTYPES: [DType; 8] = [F, F, F, I, I, I, F, F];

static FORWARD: Kernel = Kernel {
    name: "attention",
    bindings: &BINDINGS,
    scalars: scalars::members::<Geometry>,
    implementations: Implementations::Both {
        wgsl: |params| shader::emit_forward(&BINDINGS, params),
        native: native::forward,
    },
    variants: || list_configs(&DTYPES, true),
};

scalars! {
    /// The scalars of a launch in which each workgroup takes `split` of the visible keys.
    struct Split { geometry: Geometry, split: usize }
}
/// For few query rows: the keys are split into parts, and the outputs of all parts are stored consecutively.
static DECODE: Kernel = Kernel {
    name: "attention_decode",
    bindings: &BINDINGS,
    scalars: Split::members,
    implementations: Implementations::Gpu(|params| shader::emit_decode(&BINDINGS, params)),
    variants: || {
        let make_variant = |dim: &usize| Variant {
            params: Decode::new(*dim).params(),
            dtypes: DTYPES.to_vec(),
            threads: DECODE_THREADS as u32,
        };
        CLASSES.iter().map(make_variant).collect()
    },
};
scalars! {
    struct Parts { rows: usize, dim: usize, parts: usize }
}
static MERGE: Kernel = Kernel {
    name: "attention_merge",
    bindings: &[("os", Access::Read), ("lses", Access::Read), ("o", Access::Write), ("lse", Access::Write)],
    scalars: Parts::members,
    implementations: Implementations::Gpu(|_| include_str!("merge.wgsl").into()),
    variants: || vec![Variant { params: [0; 4], dtypes: vec![F; 4], threads: THREADS as u32 }],
};

scalars! {
    struct Delta { rows: usize, dim: usize }
}
static DELTA: Kernel = Kernel {
    name: "attention_delta",
    bindings: &[("d_o", Access::Read), ("o", Access::Read), ("delta", Access::Write)],
    scalars: Delta::members,
    implementations: Implementations::Native(native::delta),
    variants: Vec::new,
};
/// All three gradients in one pass. Only a processor runs it: in a shader several workgroups would have to add to one
/// output.
static BACKWARD: Kernel = Kernel {
    name: "attention_backward",
    bindings: &[
        ("q", Access::Read),
        ("k", Access::Read),
        ("v", Access::Read),
        ("d_o", Access::Read),
        ("lse", Access::Read),
        ("delta", Access::Read),
        ("query_segment", Access::Read),
        ("key_segment", Access::Read),
        ("mask", Access::Read),
        ("d_q", Access::ReadWrite),
        ("d_k", Access::ReadWrite),
        ("d_v", Access::ReadWrite),
        ("parts", Access::ReadWrite),
    ],
    scalars: scalars::members::<Geometry>,
    implementations: Implementations::Native(native::backward),
    variants: Vec::new,
};

scalars! {
    struct Rows {
        rows: usize,
        dim: usize,
        heads: usize,
        queries: usize,
        segment_batch: usize,
        has_segments: bool,
        has_d_lse: bool,
    }
}
/// The values of each query row that a GPU's backward reads: three words in one binding, since a kernel may have only
/// eight.
static ROWS: Kernel = Kernel {
    name: "attention_rows",
    bindings: &[
        ("d_o", Access::Read),
        ("o", Access::Read),
        ("lse", Access::Read),
        ("d_lse", Access::Read),
        ("query_segment", Access::Read),
        ("rows", Access::Write),
    ],
    scalars: Rows::members,
    implementations: Implementations::Gpu(|_| include_str!("rows.wgsl").into()),
    variants: || vec![Variant { params: [0; 4], dtypes: vec![F, F, F, F, I, I], threads: THREADS as u32 }],
};
/// `labels`: a key's segment or mask value; with both, one follows the other.
const BACKWARD_READS: [(&str, Access); 6] = [
    ("q", Access::Read),
    ("k", Access::Read),
    ("v", Access::Read),
    ("d_o", Access::Read),
    ("rows", Access::Read),
    ("labels", Access::Read),
];
static BACKWARD_Q: Kernel = Kernel {
    name: "attention_backward_q",
    bindings: &concat::<_, 7>(&BACKWARD_READS, &[("d_q", Access::ReadWrite)]),
    scalars: scalars::members::<Geometry>,
    implementations: Implementations::Gpu(|params| shader::emit_backward_q(BACKWARD_Q.bindings, params)),
    variants: || list_configs(&[F, F, F, F, I, I, F], false),
};
static BACKWARD_KV: Kernel = Kernel {
    name: "attention_backward_kv",
    bindings: &concat::<_, 8>(&BACKWARD_READS, &[("d_k", Access::ReadWrite), ("d_v", Access::ReadWrite)]),
    scalars: scalars::members::<Geometry>,
    implementations: Implementations::Gpu(|params| shader::emit_backward_kv(BACKWARD_KV.bindings, params)),
    variants: || list_configs(&[F, F, F, F, I, I, F, F], false),
};

pub const KERNELS: &[&Kernel] = &[
    &FORWARD,
    &FORWARD_DROPPED,
    &DECODE,
    &MERGE,
    &DELTA,
    &BACKWARD,
    &BACKWARD_DROPPED,
    &ROWS,
    &BACKWARD_Q,
    &BACKWARD_Q_DROPPED,
    &BACKWARD_KV,
    &BACKWARD_KV_DROPPED,
];

/// The same kernels with dropout.
static FORWARD_DROPPED: Kernel = Kernel {
    name: "attention_dropped",
    bindings: &BINDINGS,
    scalars: Dropped::members,
    implementations: Implementations::Both {
        wgsl: |params| shader::emit_forward(&BINDINGS, params),
        native: native::forward_dropped,
    },
    variants: || list_dropped_configs(&DTYPES),
};
static BACKWARD_DROPPED: Kernel = Kernel {
    name: "attention_backward_dropped",
    bindings: BACKWARD.bindings,
    scalars: Dropped::members,
    implementations: Implementations::Native(native::backward_dropped),
    variants: Vec::new,
};
static BACKWARD_Q_DROPPED: Kernel = Kernel {
    name: "attention_backward_q_dropped",
    bindings: BACKWARD_Q.bindings,
    scalars: Dropped::members,
    implementations: Implementations::Gpu(|params| shader::emit_backward_q(BACKWARD_Q.bindings, params)),
    variants: || list_dropped_configs(&[F, F, F, F, I, I, F]),
};
static BACKWARD_KV_DROPPED: Kernel = Kernel {
    name: "attention_backward_kv_dropped",
    bindings: BACKWARD_KV.bindings,
    scalars: Dropped::members,
    implementations: Implementations::Gpu(|params| shader::emit_backward_kv(BACKWARD_KV.bindings, params)),
    variants: || list_dropped_configs(&[F, F, F, F, I, I, F, F]),
};

const THREADS: usize = 64;
const DECODE_THREADS: usize = 128;

fn list_configs(dtypes: &[DType], subgroups: bool) -> Vec<Variant> {
    let make_variant = |config: Config| Variant {
        params: config.params(),
        dtypes: dtypes.to_vec(),
        threads: config.threads as u32,
    };
    Config::list(subgroups).into_iter().map(make_variant).collect()
}

/// Like `list_configs`, without subgroups.
fn list_dropped_configs(dtypes: &[DType]) -> Vec<Variant> {
    let with_dropout = |config: Config| Config { dropped: true, ..config };
    let make_variant = |config: Config| Variant {
        params: with_dropout(config).params(),
        dtypes: dtypes.to_vec(),
        threads: config.threads as u32,
    };
    Config::list(false).into_iter().map(make_variant).collect()
}
