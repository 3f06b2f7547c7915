//! The shaders' text. A line of WGSL that contains `$i` is repeated for each row of an invocation's tile, and one that
//! contains `$c` for each vector of its sums. So an invocation's values are in variables instead of arrays, which some
//! drivers do not keep in registers. Such lines branch without an else, and inside a loop they use `select`: a compiler
//! that follows every path through a loop's body (SwiftShader's) then takes less than a second instead of minutes.
//!
//! A workgroup owns some rows (queries; for the gradients of keys, keys) and iterates over the passing rows. Scores are
//! a product of own and passing rows, in steps of 32 elements of a row, with both staged in workgroup memory. An
//! invocation computes the scores of 4 own rows (2 for large heads) and 4 passing rows. The weights are then stored in
//! workgroup memory, and each invocation adds the passing rows to its vectors of the sums (o, dq, dk, dv). All reads
//! are vec4, from rows with an odd number of vectors, so that 8 neighbouring invocations read 8 different banks. Inner
//! loops have no divisions. Passing rows are processed in ascending order, and a score is summed along D in one chain:
//! the order of a sum depends only on the shape, not on the tile or variant.
//!
//! The loop over keys needs only a row's maximum, so it has one reduction per tile; sums and flags stay in each
//! invocation until the end. The reduction uses subgroups if the smallest subgroup contains the 8 invocations of a row,
//! otherwise workgroup memory. Backward needs no reduction. A value that is not finite would turn a hidden weight of 0
//! into NaN: once there is one, forward's sums check for each pair whether it is visible.
//!
//! Counted from the text, for one passing tile without hidden scores; nothing was timed on real GPUs. FLOPs per byte
//! count all reads from memory or its caches, with own rows read again for each tile.
//!
//! | shader       | D   | own × passing | invocations | multiply-adds per vec4 load | registers of scores and sums | workgroup memory | FLOPs per byte |
//! |--------------|-----|---------------|-------------|-----------------------------|------------------------------|------------------|----------------|
//! | forward      | 64  | 64 × 32       | 128         | 9.1                         | 48                           | 14.2 KiB         | 16             |
//! |              | 64  | 32 × 32       | 64          | 9.1                         | 48                           | 13.0 KiB         | 11             |
//! |              | 128 | 64 × 32       | 128         | 9.8                         | 80                           | 14.2 KiB         | 16             |
//! |              | 256 | 16 × 32       | 64          | 6.2                         | 72                           | 10.7 KiB         | 6              |
//! | backward, q  | 64  | 64 × 32       | 128         | 8.7                         | 64                           | 14.1 KiB         | 14             |
//! | backward, kv | 64  | 64 × 32       | 128         | 9.1                         | 96                           | 14.5 KiB         | 16             |
//! |              | 128 | 32 × 64       | 128         | 9.1                         | 96                           | 15.1 KiB         | 13             |
//! |              | 256 | 8 × 64        | 64          | 6.1                         | 80                           | 11.7 KiB         | 4              |
//!
//! Decoding (at most 8 query rows per key/value head, 4 for large heads) reads K and V once, in vectors. The keys are
//! split into parts of at least 128, for up to 256 workgroups, and the parts are merged by their log-sum-exps. At 2
//! FLOPs per byte for each query row of a group it is bound by memory. It uses 13 to 15 KiB of workgroup memory for 128
//! invocations.

use std::fmt::Write;

use super::config::{Config, Decode};
use super::tile::Tile;
use crate::kernel::shader::{HIGH_WORD, PHILOX};
use crate::kernel::{Access, Params};
use crate::kernels::elementwise::wide;

/// Adds weights times passing rows of `b` to `sum`. With `careful`, rows that contain a value that is not finite are
/// only added where they are visible.
fn emit_sums(sum: &str, b: &str, careful: bool) -> String {
    let masked_sum = "      } else {
        for (var n = taken; n < taken + KEYS; n += 1u) {
          let x$c = pool[STREAM + (n - taken) * D4 + tx + $cu * TX];
          let w$i = pool[(ty * RM + $iu) * SCORE_ROW + n / 4u][n % 4u];
          let seen$i = sees(row_mask$i, n);
          SUM$i_$c = select(SUM$i_$c, fma(vec4<f32>(w$i), x$c, SUM$i_$c), seen$i);
        }
      }";
    let [check, finite, masked_sum] = match careful {
        true => ["        if infinite(v) { unsound = 1u; }", "      if unsound == 0u {", masked_sum],
        false => ["", "      {", "      }"],
    };
    include_str!("sums.wgsl")
        .replace("CHECK", check)
        .replace("FINITE", finite)
        .replace("APART", masked_sum)
        .replace("SUM", sum)
        .replace("B4(", &format!("{b}4("))
}

/// Generates the functions that load vector `c` of the row at `place`, padded with zeros. For written bindings, also
/// those that store one, and that add one if an earlier window has stored a value.
fn emit_accessors(bindings: &[(&'static str, Access)], names: &[&str], vectors: bool) -> String {
    let mut out = String::new();
    for name in names {
        let index = bindings.iter().position(|(n, _)| n == name).expect("a binding of the kernel");
        let written = bindings[index].1 != Access::Read;
        let scaled = if *name == "q" { "v * p.scale" } else { "v" };
        let (load, store) = match vectors {
            true => {
                out += &wide::emit_vectors(name, index, written);
                (
                    format!("v = load4_{name}((place >> 2u) + c);"),
                    format!("store4_{name}((place >> 2u) + c, v);"),
                )
            }
            false => (
                // By name, since FXC cannot assign to an element with a variable index.
                emit_by_element(|k, element| {
                    format!("if 4u * c + {k} < p.dim {{ {element} = load_{name}(place + 4u * c + {k}); }}")
                }),
                emit_by_element(|k, element| {
                    format!("if 4u * c + {k} < p.dim {{ store_{name}(place + 4u * c + {k}, {element}); }}")
                }),
            ),
        };
        writeln!(
            out,
            "fn {name}4(place: u32, c: u32) -> vec4<f32> {{
  var v = vec4<f32>();
  if (place != NOWHERE) & (4u * c < p.dim) {{
    {load}
    v = {scaled};
  }}
  return v;
}}"
        )
        .unwrap();
        if written {
            writeln!(
                out,
                "fn put_{name}(place: u32, c: u32, v: vec4<f32>) {{
  if 4u * c < p.dim {{ {store} }}
}}
fn add_{name}(place: u32, c: u32, v: vec4<f32>) {{
  if (p.flags & FIRST) != 0u {{ put_{name}(place, c, v); }} else {{ put_{name}(place, c, {name}4(place, c) + v); }}
}}"
            )
            .unwrap();
        }
    }
    out
}

/// Replaces a shader's markers, which differ with dropout: (marker, text without dropout, text with dropout).
fn replace_markers(text: &str, dropped: bool, markers: &[(&str, &str, &str)]) -> String {
    let emit = |text: String, (marker, without, with): &(&str, &str, &str)| {
        text.replace(marker, if dropped { with } else { without })
    };
    markers.iter().fold(text.to_string(), emit)
}

/// Generates a statement for each element of the vector `v` from the element's index and name.
fn emit_by_element(statement: impl Fn(&str, &str) -> String) -> String {
    ["x", "y", "z", "w"]
        .iter()
        .enumerate()
        .map(|(k, name)| statement(&format!("{k}u"), &format!("v.{name}")))
        .collect::<Vec<_>>()
        .join("\n    ")
}

fn emit_tiled(tile: &Tile, config: Config, labels: &str, accessors: String, body: &str) -> String {
    let reductions = match config.subgroups {
        true => include_str!("subgroups.wgsl"),
        false => include_str!("shared.wgsl"),
    };
    let dropped = match config.dropped {
        true => [HIGH_WORD, PHILOX, include_str!("dropped.wgsl")].concat(),
        false => String::new(),
    };
    let scores = "struct Scores {\n  s$i: vec4<f32>,\n}\n";
    let text = [
        &tile.emit_constants(),
        include_str!("row_mask.wgsl"),
        labels,
        &dropped,
        include_str!("tile.wgsl"),
        scores,
        reductions,
        &accessors,
        body,
    ];
    tile.unroll(&text.concat())
}

const FORWARD_MARKERS: [(&str, &str, &str); 1] = [(
    "WEIGHT",
    "weight$i",
    "weight$i * kept4(p.key_at + begin + 4u * tx, lse_at(block, min(row$i, rows - 1u)))",
)];
const BACKWARD_Q_MARKERS: [(&str, &str, &str); 1] =
    [("D_WEIGHT", "d.s$i", "d.s$i * kept4(p.key_at + begin + 4u * tx, stat$i)")];
/// A key's weights are multiplied by columns of four rows' factors.
const BACKWARD_KV_MARKERS: [(&str, &str, &str); 5] = [
    ("D_WEIGHT", "d.s$i", "d.s$i * kept$i"),
    ("WEIGHT", "weight$i", "weight$i * kept$i"),
    ("ROW_ID", "", "      row_id[n] = stat;\n"),
    ("DECLARE\n", "", "var<workgroup> row_id: array<u32, BN>;\n"),
    (
        "KEPT",
        "",
        "    let own = p.key_at + block.first + ty * RM;
    let factors0 = kept4(own, row_id[n]);
    let factors1 = kept4(own, row_id[n + 1u]);
    let factors2 = kept4(own, row_id[n + 2u]);
    let factors3 = kept4(own, row_id[n + 3u]);
    let kept$i = vec4<f32>(factors0[$i], factors1[$i], factors2[$i], factors3[$i]);
",
    ),
];

pub fn emit_forward(bindings: &[(&'static str, Access)], params: Params) -> String {
    let config = Config::from_params(params);
    let tile = Tile::for_queries(config);
    let body = tile.emit_scores("q", "k")
        + &replace_markers(include_str!("forward.wgsl"), config.dropped, &FORWARD_MARKERS)
            .replace("SUMS\n", &emit_sums("o", "v", true))
            .replace("LARGEST_LIST", &tile.emit_list("largest(s$i)", Some("0.0")))
            .replace("SUM_LIST", &tile.emit_list("sum$i", Some("0.0")));
    let accessors = emit_accessors(bindings, &["q", "k", "v", "o"], config.vectors);
    emit_tiled(&tile, config, include_str!("labels.wgsl"), accessors, &body)
}

pub fn emit_backward_q(bindings: &[(&'static str, Access)], params: Params) -> String {
    let config = Config::from_params(params);
    let tile = Tile::for_queries(config);
    let body = tile.emit_scores("q", "k")
        + &tile.emit_scores("d_o", "v")
        + &replace_markers(include_str!("backward_q.wgsl"), config.dropped, &BACKWARD_Q_MARKERS)
            .replace("SUMS\n", &emit_sums("o", "k", false));
    let accessors = emit_accessors(bindings, &["q", "k", "v", "d_o", "d_q"], config.vectors);
    emit_tiled(&tile, config, include_str!("folded.wgsl"), accessors, &body)
}

pub fn emit_backward_kv(bindings: &[(&'static str, Access)], params: Params) -> String {
    let config = Config::from_params(params);
    let tile = Tile::for_keys(config);
    let body = tile.emit_scores("k", "q")
        + &tile.emit_scores("v", "d_o")
        + &replace_markers(include_str!("backward_kv.wgsl"), config.dropped, &BACKWARD_KV_MARKERS)
            .replace("SUMS_V\n", &emit_sums("v", "d_o", false))
            .replace("SUMS_K\n", &emit_sums("k", "q", false));
    let accessors = emit_accessors(bindings, &["q", "k", "v", "d_o", "d_k", "d_v"], config.vectors);
    emit_tiled(&tile, config, include_str!("folded.wgsl"), accessors, &body)
}

pub fn emit_decode(bindings: &[(&'static str, Access)], params: Params) -> String {
    let config = Decode::from_params(params);
    let dim = config.dim();
    let rows = |text: &str| -> String {
        (0..config.rows()).map(|r| text.replace("$r", &r.to_string())).collect::<Vec<_>>().join("\n")
    };
    // Rows of K in workgroup memory: 512 vectors.
    let tile = (2048 / dim).min(64);
    let body = include_str!("decode.wgsl")
        .replace("DECLARE", &rows("  var o$r = vec4<f32>();"))
        .replace("RESCALE", &rows("    o$r *= factors[$ru];"))
        .replace(
            "ADD",
            &rows("      { let w = score[$ru * CHUNK + n]; if w >= 0.0 { o$r = fma(vec4<f32>(w), v, o$r); } }"),
        )
        .replace(
            "FINISH",
            &rows("  workgroupBarrier();\n  keys[lane] = o$r;\n  workgroupBarrier();\n  finish(block, part, $ru, lane);"),
        );
    [
        &format!("const DIM = {dim}u;\nconst ROWS = {}u;\nconst TILE = {tile}u;\n", config.rows()),
        include_str!("row_mask.wgsl"),
        include_str!("labels.wgsl"),
        &emit_accessors(bindings, &["q", "k", "v", "o"], true),
        &body,
    ]
    .concat()
}
