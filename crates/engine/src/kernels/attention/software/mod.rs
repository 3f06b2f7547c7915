//! The shaders for a GPU in software: tiles of 32 × 32 scores, made and taken further by products of pairs
//! (gemm/pairs.rs), since there a lane's load costs what some 16 multiply-adds do.
//!
//! Layout: a workgroup is one subgroup of 8 lanes. It keeps 32 query rows of one query head (forward, d_q) or 32
//! keys of one key/value head (d_k, d_v) and goes through the other side's tiles. A tile of scores lies in
//! workgroup memory; what is summed over tiles stays in the output itself, so that any head size is
//! served. Between the products each lane takes four rows of the tile: maxima, weights, dS.
//! Cost: what is read and written, 8 bytes a lane, decides: some 50 cycles each for the 8 lanes. A tile at
//! D = 64: forward 320 for the scores, 256 for the weights, 512 for o; d_q 640, 256, 512; d_k and d_v 640,
//! 256, 1024.
//! Measured: a block of SmolLM2 with adapters (9 heads of 64, 512 tokens, forward and backward, Mesa 22.3.6 on
//! two cores) took 1,329 ms with the plain shaders, of which attention 1,040, and takes 357, of which attention
//! 119: forward 29, backward 89. Counted and not tried, since each leaves the block above 1.5 times what
//! its arithmetic takes as one product (210): weights made in the registers that hold the scores, a fifth
//! less; o in registers from tile to tile, twice as many as fit; both kernels of backward in one, which
//! three key/value heads would share between two cores.
//! Neighbours along D and along the keys pair up: D is even, and so are the keys and, in d_k and d_v, the
//! queries; other shapes take the plain shaders.

use super::geometry::Geometry;
use crate::device::Profile;
use crate::dtype::DType;
use crate::kernel::Params;
use crate::kernels::gemm::pairs::{Along, Arrays, LANES, Pairs, halves_of, words};
use crate::kernels::gemm::spelled::{SIZES, Spelled};
use crate::recording::Range;

/// Query rows, and keys, of a tile.
pub const SIDE: usize = 32;
/// `params[2]` of these shaders.
pub const SOFTWARE: u32 = 1;
pub const THREADS: u32 = LANES;

/// Fewer rows are not worth a tile.
const FEWEST: usize = 8;

/// Whether the device makes products of pairs, and pairs fit: in a launch that keeps keys the queries pair
/// up, too.
pub fn fits(profile: &Profile, g: &Geometry, keeps_keys: bool, ranges: &[Range]) -> bool {
    let even = |n: usize| n.is_multiple_of(2);
    let aligned = |r: &Range| (r.offset / 4).is_multiple_of(2);
    profile.software
        && profile.subgroup == LANES
        && g.queries >= FEWEST
        && even(g.dim)
        && even(g.keys)
        && (!keeps_keys || even(g.queries))
        && ranges.iter().all(aligned)
}

const TILE: Pairs = Pairs {
    rows: SIDE as u32,
    columns: SIDE as u32 / LANES,
    a: Along::Terms,
    b: Along::Terms,
    stored: DType::F32,
    accumulate: false,
    second: None,
};
/// A product that is summed over tiles: weights by rows.
const SUM: Pairs = Pairs { b: Along::Side, ..TILE };
/// The same by the weights' transpose.
const SUM_OF_COLUMNS: Pairs = Pairs { a: Along::Side, ..SUM };

fn arrays(a: &'static str, b: &'static str, c: &'static str) -> Arrays {
    Arrays { a, b, a2: "", b2: "", c }
}

fn function(name: &str) -> String {
    format!("{name}(p: Sizes, group: u32, lane: u32)")
}

/// Scores of the tile in `score` or `d_score`: rows by keys.
const SCORES: Spelled = Spelled {
    sizes: ["rows", "count", "p.dim"],
    a: ["q_start", "p.q_row", "1u"],
    b: ["k_start", "1u", "p.kv_row"],
    c: ["0u", "TILE"],
    second: None,
    alpha: "p.scale",
    adds: "false",
    keep: "vec4<f32>(1.0)",
};

/// The head of all three, and the bindings that are read and written by words.
fn head(bindings: &[(&str, u32, &str)]) -> String {
    let words: String = bindings
        .iter()
        .map(|(name, binding, access)| words(&format!("{name}_words"), *binding, access))
        .collect();
    words + &halves_of(DType::F32) + SIZES + include_str!("common.wgsl")
}

/// The columns of an output of D columns, a block of them at a time.
fn by_columns(sum: Spelled, function: &str, tile: Pairs) -> String {
    let call = sum.call(function, "part", tile);
    format!("for (var part = 0u; part < (p.dim + TILE - 1u) / TILE; part++) {{\n      {call}\n    }}")
}

pub fn forward(_: Params) -> String {
    let o = Spelled {
        sizes: ["rows", "p.dim", "count"],
        a: ["0u", "TILE", "1u"],
        b: ["v_start", "p.kv_row", "1u"],
        c: ["o_start", "p.q_row"],
        alpha: "1.0",
        adds: "began",
        keep: "keep",
        ..SCORES
    };
    head(&[("q", 0, "read"), ("k", 1, "read"), ("v", 2, "read"), ("o", 6, "read_write")])
        + &TILE.function(&function("scores"), false, arrays("q_words", "k_words", "score"))
        + &SUM.keeping(&function("outputs"), arrays("score", "v_words", "o_words"))
        + &include_str!("forward.wgsl")
            .replace("SCORES", &SCORES.call("scores", "0u", TILE))
            .replace("OUTPUTS", &by_columns(o, "outputs", SUM))
}

/// What the two kernels of backward share: the scores, and do vᵀ.
fn backward(outputs: &[(&str, u32, &str)]) -> String {
    let reads = [("q", 0, "read"), ("k", 1, "read"), ("v", 2, "read"), ("d_o", 3, "read")];
    head(&[&reads, outputs].concat())
        + include_str!("backward.wgsl")
        + &TILE.function(&function("scores"), false, arrays("q_words", "k_words", "score"))
        + &TILE.function(&function("d_scores"), false, arrays("d_o_words", "v_words", "d_score"))
}

/// The products that make a tile's scores, and do vᵀ.
fn with_scores(body: &str) -> String {
    let a = ["d_o_start", "p.q_row", "1u"];
    let d_scores = Spelled { a, b: ["v_start", "1u", "p.kv_row"], alpha: "1.0", ..SCORES };
    body.replace("D_SCORES", &d_scores.call("d_scores", "0u", TILE))
        .replace("SCORES", &SCORES.call("scores", "0u", TILE))
}

pub fn backward_q(_: Params) -> String {
    let d_q = Spelled {
        sizes: ["rows", "p.dim", "count"],
        a: ["0u", "TILE", "1u"],
        b: ["k_start", "p.kv_row", "1u"],
        c: ["d_q_start", "p.q_row"],
        adds: "began",
        ..SCORES
    };
    backward(&[("d_q", 9, "read_write")])
        + &SUM.keeping(&function("d_queries"), arrays("d_score", "k_words", "d_q_words"))
        + &with_scores(include_str!("backward_q.wgsl"))
            .replace("D_QUERIES", &by_columns(d_q, "d_queries", SUM))
}

pub fn backward_kv(_: Params) -> String {
    let d_v = Spelled {
        sizes: ["count", "p.dim", "rows"],
        a: ["0u", "1u", "TILE"],
        b: ["d_o_start", "p.q_row", "1u"],
        c: ["d_v_start", "p.kv_row"],
        alpha: "1.0",
        adds: "began",
        ..SCORES
    };
    let d_k =
        Spelled { b: ["q_start", "p.q_row", "1u"], c: ["d_k_start", "p.kv_row"], alpha: "p.scale", ..d_v };
    backward(&[("d_k", 9, "read_write"), ("d_v", 10, "read_write")])
        + &SUM_OF_COLUMNS.keeping(&function("d_values"), arrays("score", "d_o_words", "d_v_words"))
        + &SUM_OF_COLUMNS.keeping(&function("d_keys"), arrays("d_score", "q_words", "d_k_words"))
        + &with_scores(include_str!("backward_kv.wgsl"))
            .replace("D_VALUES", &by_columns(d_v, "d_values", SUM_OF_COLUMNS))
            .replace("D_KEYS", &by_columns(d_k, "d_keys", SUM_OF_COLUMNS))
}
