//! The product in WGSL; variants of one plan sum in the same order.
//!
//! Counts for f32, by reading (docs/kernels.md lists every variant): FLOPs per byte of memory are 2 · rows · columns /
//! (4 · (rows + columns)), since a term of a tile is staged once; fma are of single elements; a shared read loads a
//! vector of four; registers are the sums and the factors of a term, plus about 24 for indices.
//!
//! | C per workgroup, depth | per invocation | invocations | FLOPs per byte | fma per shared read | registers | workgroup memory |
//! |------------------------|----------------|-------------|----------------|---------------------|-----------|------------------|
//! | 64 × 16 × 16           | 4 × 4          | 64          | 6.4            | 8.0                 | 48        | 5.5 KiB          |
//! | 16 × 64 × 16           | 4 × 4          | 64          | 6.4            | 8.0                 | 48        | 5.5 KiB          |
//! | 32 × 32 × 16           | 4 × 4          | 64          | 8.0            | 8.0                 | 48        | 4.5 KiB          |
//! | 64 × 64 × 16           | 4 × 4          | 256         | 16.0           | 8.0                 | 48        | 8.5 KiB          |
//! | 128 × 128 × 8          | 8 × 8          | 256         | 32.0           | 16.0                | 104       | 8.2 KiB          |
//! | 64 × 64 × 16           | 8 × 8          | 64          | 16.0           | 16.0                | 104       | 8.5 KiB          |
//! | 64 × 32 × 16           | 4 × 4          | 128         | 10.7           | 8.0                 | 48        | 6.5 KiB          |
//! | 32 × 64 × 16           | 4 × 4          | 128         | 10.7           | 8.0                 | 48        | 6.5 KiB          |
//! | 128 × 64 × 16          | 8 × 4          | 256         | 21.3           | 10.7                | 68        | 12.5 KiB         |
//!
//! The outer variant (outer.rs) has 4 × 4 elements per invocation and no shared memory. Dot products (dots.rs) of r
//! rows read B once, do r / 2 FLOPs per byte of it, and use r KiB to add the lanes' sums; few rows by columns
//! (columns.rs) use 4 r KiB.
//!
//! With two segments, the sums pass through the epilogue, restart from 0 in the same registers, and are added to the
//! stored result: an invocation writes its part of C twice and reads it once. It is bit-identical to two launches.

use super::emit::emit_position;
use super::plan::{AccessPatterns, Config};
use super::stage::{Factor, Read};
use super::tile::Tile;
use super::{columns, dots, outer};
use crate::kernel::Params;

/// The body of a variant. With two segments, the first has its usual epilogue, and the second is added to its result.
pub fn emit_body(params: Params, bias: bool, two: bool) -> String {
    let config = Config::from_params(params);
    let position = emit_config_position(config);
    match config {
        Config::Tile(tile, reads) => {
            emit_epilogue(bias, two, "sum") + &emit_tiled(tile, reads, &position, two)
        }
        Config::Outer(reads) => emit_epilogue(bias, false, "sum") + &outer::emit_body(reads, &position, bias),
        Config::Dots { rows, wide, subgroups } => {
            emit_epilogue(bias, false, "sum") + &dots::emit_body(rows, wide, subgroups, &position)
        }
        Config::Columns { rows, wide } => {
            emit_epilogue(bias, false, "sum") + &columns::emit_body(rows, wide, &position)
        }
    }
}

/// The body of a tile in f16; `unscaled` scales its sums back.
pub fn emit_f16_body(params: Params, bias: bool, unscaled: &str) -> String {
    let config = Config::from_params(params);
    match config {
        Config::Tile(tile, reads) => {
            emit_epilogue(bias, false, unscaled)
                + &emit_tiled(tile, reads, &emit_config_position(config), false)
        }
        _ => unreachable!("only tiles are staged in f16"),
    }
}

fn emit_config_position(config: Config) -> String {
    emit_position(config.block().map(|side| side as u32), "p.row_blocks", "p.column_blocks")
}

/// WGSL: the epilogue of an element's `sum`; with two segments, the second is added to the result of the first.
fn emit_epilogue(bias: bool, two: bool, sum: &str) -> String {
    let (segment, alpha) = match two {
        true => (", segment: u32", "select(p.alpha2, p.alpha, segment == 0u)"),
        false => ("", "p.alpha"),
    };
    let add_bias = match (bias, two) {
        (false, _) => "",
        (true, false) => "v += load_bias(column);",
        (true, true) => "if segment == 0u { v += load_bias(column); }",
    };
    let adds = if two { "(p.accumulate == 1u) | (segment == 1u)" } else { "p.accumulate == 1u" };
    format!(
        "fn epilogue(z: u32{segment}, row: u32, column: u32, sum: f32) {{
  if (row < p.m) & (column < p.n) {{
    let at = z * p.c_batch + row * p.c_row + column;
    var v = {alpha} * {sum};
    {add_bias}
    if {adds} {{ v += load_c(at); }}
    store_c(at, v);
  }}
}}
"
    )
}

fn emit_tiled(tile: Tile, reads: AccessPatterns, position: &str, two: bool) -> String {
    let a = Factor {
        name: "a",
        base: "z * p.a_batch",
        line: "row",
        lines: "p.m",
        line_step: "p.a_row",
        term_step: "p.a_column",
        scales: tile.f16.then_some(("a_scale", "z * p.m")),
    };
    let b = Factor {
        name: "b",
        base: "z * p.b_batch",
        line: "column",
        lines: "p.n",
        line_step: "p.b_column",
        term_step: "p.b_row",
        scales: tile.f16.then_some(("b_scale", "of_b(z)")),
    };
    let first = tile.emit_sum(
        "p.k",
        &a.emit_fill(tile.left_block(), reads.a),
        &b.emit_fill(tile.right_block(), reads.b),
    );
    if !two {
        return tile.emit_kernel(position, &(first + &tile.emit_stores("epilogue(z")));
    }
    // A few terms of one matrix, with rows of any length.
    let (a, b) = (
        Factor { name: "a2", base: "0u", line_step: "p.a2_row", term_step: "p.a2_column", ..a },
        Factor { name: "b2", base: "0u", line_step: "p.b2_column", term_step: "p.b2_row", ..b },
    );
    let [left, right] =
        [a.emit_fill(tile.left_block(), Read::Elements), b.emit_fill(tile.right_block(), Read::Elements)];
    let second = tile.emit_sum("p.k2", &left, &right);
    let sums = format!(
        "  for (var segment = 0u; segment < 2u; segment++) {{
  if segment == 0u {{
{first}  }} else {{
{zeros}{second}  }}
{stores}  }}
",
        zeros = tile.emit_zeros(""),
        stores = tile.emit_stores("epilogue(z, segment"),
    );
    tile.emit_kernel(position, &sums)
}
