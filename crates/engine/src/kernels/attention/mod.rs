//! Attention without its square: softmax(scale · Q Kᵀ) V and its gradients, tile by tile.
//!
//! Maths: S = scale · q kᵀ where the query sees the key, L = log Σ exp S, o = Σ exp(S − L) v.
//! Backward makes P = exp(S − L) again: dv = Pᵀ do, δ = Σ do ∘ o, dS = P ∘ (do vᵀ − δ),
//! dq = scale · dS k, dk = scale · dSᵀ q.
//! Layout: q, o [B, T, H, D]; k, v [B, S, Hkv, D], of which the first `length` are read; L and δ
//! [B, T, H], so that windows of rows are ranges. Query head h reads key/value head h / (H / Hkv).
//! Keys that no query of a tile sees are passed over. Hidden scores are −3.4e38.
//! Cost: 4·T·S·D·H flops forward and 10 backward (14 on a GPU, whose two kernels each make S), half
//! that where causal; memory O(T). Windows of keys are merged through (o, L) in the outputs.
//! Shaders: a workgroup keeps 4 to 16 rows and streams the other side through workgroup memory
//! (under 16 KiB), vec4 along D; a plain first version. Native twins: native/mod.rs.
//!
//! Counted from the text at D = 64, where nothing is hidden: 128 invocations, 8 a row.
//!
//! | shader      | tile    | FLOPs a byte of memory | bytes of workgroup memory a FLOP | workgroup memory | registers |
//! |-------------|---------|------------------------|----------------------------------|------------------|-----------|
//! | forward     | 16 × 32 | 8                      | 4 for scores, 2 for sums         | 14 KiB           | 40        |
//! | backward, q | 16 × 16 | 12                     | 4, 4, 2                          | 13 KiB           | 40        |
//! | backward, kv| 16 × 16 | 11                     | 4, 4, 2, 2                       | 14 KiB           | 48        |
//!
//! 100 KiB of workgroup memory hold 7 workgroups, 896 invocations: enough to hide memory, but each
//! score is a dot of two vectors from workgroup memory, which binds: a register tile of scores is what
//! comes next.
//! Source: Dao, FlashAttention-2, arXiv 2307.08691.

mod geometry;
mod native;
mod plan;

pub use geometry::DIM;
pub use plan::{Attend, Flow, backward, forward};

use std::fmt::Write;

use crate::dtype::DType;
use crate::kernel::{Access, Kernel, Params, Scalar, Twin, Variant, joined, members_of};
use geometry::SCALARS;

const F: DType = DType::F32;
const I: DType = DType::I32;

static FORWARD: Kernel = Kernel {
    name: "attention",
    bindings: &[
        ("q", Access::Read),
        ("k", Access::Read),
        ("v", Access::Read),
        ("query_segment", Access::Read),
        ("key_segment", Access::Read),
        ("mask", Access::Read),
        ("o", Access::ReadWrite),
        ("lse", Access::ReadWrite),
    ],
    scalars: || members_of(&SCALARS),
    twin: Twin::Both {
        wgsl: |params| {
            let tiled = ["q", "k", "v", "o"];
            wgsl(params, Tiles::forward, &tiled, include_str!("forward.wgsl"))
        },
        native: native::forward,
    },
    variants: || variants(&[F, F, F, I, I, I, F, F], Tiles::forward),
};
static DELTA: Kernel = Kernel {
    name: "attention_delta",
    bindings: &[("d_o", Access::Read), ("o", Access::Read), ("delta", Access::Write)],
    scalars: || members_of(&[Scalar::U32("rows"), Scalar::U32("dim")]),
    twin: Twin::Both { wgsl: |_| include_str!("delta.wgsl").into(), native: native::delta },
    variants: || vec![Variant { params: [0; 4], dtypes: vec![F; 3], threads: DELTA_THREADS }],
};
/// What the kernels of backward read, before what each of them writes.
const BACKWARD_READS: [(&str, Access); 9] = [
    ("q", Access::Read),
    ("k", Access::Read),
    ("v", Access::Read),
    ("d_o", Access::Read),
    ("lse", Access::Read),
    ("delta", Access::Read),
    ("query_segment", Access::Read),
    ("key_segment", Access::Read),
    ("mask", Access::Read),
];

static BACKWARD_Q: Kernel = Kernel {
    name: "attention_backward_q",
    bindings: &joined::<_, 10>(&BACKWARD_READS, &[("d_q", Access::ReadWrite)]),
    scalars: || members_of(&SCALARS),
    twin: Twin::Both {
        wgsl: |params| {
            let tiled = ["q", "k", "v", "d_o"];
            let body = include_str!("backward_q.wgsl");
            wgsl(params, Tiles::backward, &tiled, body)
        },
        native: native::backward_q,
    },
    variants: || variants(&[F, F, F, F, F, F, I, I, I, F], Tiles::backward),
};
static BACKWARD_KV: Kernel = Kernel {
    name: "attention_backward_kv",
    bindings: &joined::<_, 11>(&BACKWARD_READS, &[("d_k", Access::ReadWrite), ("d_v", Access::ReadWrite)]),
    scalars: || members_of(&SCALARS),
    twin: Twin::Both {
        wgsl: |params| {
            let tiled = ["q", "k", "v", "d_o"];
            let body = include_str!("backward_kv.wgsl");
            wgsl(params, Tiles::backward, &tiled, body)
        },
        native: native::backward_kv,
    },
    variants: || variants(&[F, F, F, F, F, F, I, I, I, F, F], Tiles::backward),
};
/// Both of the above in one pass. Only a processor runs it: a shader would have to sum one output
/// in several workgroups.
static BACKWARD: Kernel = Kernel {
    name: "attention_backward",
    bindings: &joined::<_, 13>(
        &BACKWARD_READS,
        &[
            ("d_q", Access::ReadWrite),
            ("d_k", Access::ReadWrite),
            ("d_v", Access::ReadWrite),
            ("parts", Access::ReadWrite),
        ],
    ),
    scalars: || members_of(&SCALARS),
    twin: Twin::Native(native::backward),
    variants: Vec::new,
};

pub const KERNELS: &[&Kernel] = &[&FORWARD, &DELTA, &BACKWARD_Q, &BACKWARD_KV, &BACKWARD];

const DELTA_THREADS: u32 = 64;

/// How a workgroup of a shader is cut: `rows` stay, tiles of `tile` others pass by.
#[derive(Clone, Copy)]
struct Tiles {
    dim: u32,
    rows: u32,
    tile: u32,
    threads: u32,
}

/// Head sizes that shaders are compiled for; smaller ones are padded.
const CLASSES: [u32; 4] = [32, 64, 128, 256];

impl Tiles {
    /// `params` = [flags, class].
    fn forward(params: Params) -> Tiles {
        let [rows, tile, threads] = match params[1] {
            0 | 1 => [16, 32, 128],
            2 => [8, 16, 64],
            _ => [4, 8, 64],
        };
        Tiles { dim: CLASSES[params[1] as usize], rows, tile, threads }
    }

    fn backward(params: Params) -> Tiles {
        let [rows, tile, threads] = match params[1] {
            0 | 1 => [16, 16, 128],
            2 => [8, 8, 64],
            _ => [4, 4, 64],
        };
        Tiles { dim: CLASSES[params[1] as usize], rows, tile, threads }
    }
}

fn variants(dtypes: &[DType], tiles: fn(Params) -> Tiles) -> Vec<Variant> {
    let of = |flags, class| {
        let params = [flags, class, 0, 0];
        Variant { params, dtypes: dtypes.to_vec(), threads: tiles(params).threads }
    };
    (0..8).flat_map(|flags| (0..CLASSES.len() as u32).map(move |class| of(flags, class))).collect()
}

/// `tiled`: the bindings that are read by vectors.
fn wgsl(params: Params, tiles: fn(Params) -> Tiles, tiled: &[&str], body: &str) -> String {
    let mut out = String::new();
    for (name, bit) in
        [("CAUSAL", geometry::CAUSAL), ("SEGMENTS", geometry::SEGMENTS), ("MASK", geometry::MASK)]
    {
        writeln!(out, "const {name} = {};", params[0] & bit != 0).unwrap();
    }
    let Tiles { dim, rows, tile, .. } = tiles(params);
    writeln!(out, "const DIM = {dim}u;\nconst ROWS = {rows}u;\nconst TILE = {tile}u;").unwrap();
    out.push_str(concat!(include_str!("sight.wgsl"), include_str!("common.wgsl")));
    for name in tiled {
        let place = if ["k", "v"].contains(name) { "kv_at" } else { "q_at" };
        let scaled = if *name == "q" { "v * p.scale" } else { "v" };
        let tile = include_str!("tile.wgsl").replace("NAME", name);
        out.push_str(&tile.replace("PLACE", place).replace("SCALED", scaled));
    }
    out + body
}
