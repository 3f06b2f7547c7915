//! The correlation in WGSL; all variants sum in the same order.
//!
//! A row is a channel of y. A column is a position of y and a term is a tap of a channel of x; for the weight's
//! gradient it is the other way round. Both are coordinates in x, and their sum is the element.

use super::plan::Config;
use crate::kernel::Params;
use crate::kernels::gemm::emit::{emit_each, emit_position};
use crate::kernels::gemm::stage::{Factor, Read};
use crate::kernels::gemm::tile::{StagingCode, Tile};

/// The result of a correlation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Out,
    Weight,
}

/// The body of a variant.
pub fn emit_body(params: Params, side: Side, bias: bool) -> String {
    let config = Config::from_params(params);
    let block = config.block().map(|side| side as u32);
    let add_bias = if bias { "v += load_bias(g * (p.o_group / p.o_row) + row);" } else { "" };
    let (column_count, offset_of_output, output) = match side {
        Side::Out => ("p.positions", "b * p.o_batch + g * p.o_group + row * p.o_row + column", "o"),
        Side::Weight => {
            ("p.channels * tap_count()", "(g * (p.o_group / p.o_row) + row) * p.w_row + column", "w")
        }
    };
    let head = format!(
        "fn columns() -> u32 {{ return {column_count}; }}
fn epilogue(b: u32, g: u32, row: u32, column: u32, sum: f32) {{
  if (row < p.rows) & (column < columns()) {{
    let at = {offset_of_output};
    var v = sum;
    {add_bias}
    if p.accumulate == 1u {{ v += load_{output}(at); }}
    store_{output}(at, v);
  }}
}}
"
    );
    let blocks = |count: &str, side: u32| format!("({count} + {}u) / {side}u", side - 1);
    let position = emit_position(block, &blocks("p.rows", block[0]), &blocks("columns()", block[1]))
        + "  let g = z % p.group_count;
  let b = z / p.group_count;
  let image = p.x_base + b * p.x_batch + g * p.x_group;
";
    include_str!("common.wgsl").to_owned()
        + &head
        + &match config {
            Config::Lanes => emit_lanes(side, &position),
            Config::Tile(tile, read) => emit_tiled(tile, read, side, &position),
        }
}

/// WGSL of the `Lanes` variant. Columns past the end read the last one and are not stored.
fn emit_lanes(side: Side, position: &str) -> String {
    let (point, start) = match side {
        Side::Out => {
            ("position(image, min(own, columns() - 1u))", "(g * (p.o_group / p.o_row) + row) * p.w_row")
        }
        Side::Weight => ("tap(min(own, columns() - 1u))", "g * p.o_group + row * p.o_row"),
    };
    let product =
        |factor: &str| format!("    sum = fma(load_{factor}(a), take(spot, term), sum);\n    a += 1u;\n");
    // Nested loops over the terms: a division for each term would cost more than the products.
    let loops = match side {
        Side::Out => format!(
            "  var a = start;
  let t = vec3<i32>(taps());
  for (var c = 0u; c < p.channels; c++) {{
  for (var d = 0; d < t.x; d++) {{
  for (var h = 0; h < t.y; h++) {{
  for (var w = 0; w < t.z; w++) {{
    let term = Place(c * image_size(), vec3<i32>(d, h, w) * steps());
{}  }} }} }} }}
",
            product("w")
        ),
        Side::Weight => format!(
            "  for (var n = 0u; n < p.batch; n++) {{
    var a = start + n * p.o_batch;
    var term = position(image + n * p.x_batch, 0u);
    var q = p.start % p.out_w;
    for (var k = 0u; k < p.positions; k++) {{
{}      q += 1u;
      term.at.z += strides().z;
      if q == p.out_w {{ q = 0u; term = position(term.image, k + 1u); }}
    }}
  }}
",
            product("o")
        ),
    };
    format!(
        "fn kernel(group: u32, lane: u32) {{
{position}  let own = column + lane;
  let spot = {point};
  let start = {start};
  var sum = 0.0;
{loops}  epilogue(b, g, row, own, sum);
}}
"
    )
}

/// WGSL of the `Tile` variant. An invocation always stages the same four columns, whose coordinates it keeps, and
/// advances the terms digit by digit, without divisions.
fn emit_tiled(tile: Tile, read: Read, side: Side, position: &str) -> String {
    let (factor, point, terms, first, by, sizes, term) = match side {
        Side::Out => (
            Factor {
                name: "w",
                base: "g * (p.o_group / p.o_row) * p.w_row",
                line: "row",
                lines: "p.rows",
                line_step: "p.w_row",
                term_step: "1u",
                scales: None,
            },
            "position(image, own)",
            "p.channels * tap_count()",
            "tap_digits(right_t)",
            "tap_digits",
            "taps()",
            "Place(at.x * image_size(), vec3<i32>(at.yzw) * steps())",
        ),
        Side::Weight => (
            Factor {
                name: "o",
                base: "n * p.o_batch + g * p.o_group",
                line: "row",
                lines: "p.rows",
                line_step: "p.o_row",
                term_step: "1u",
                scales: None,
            },
            "tap(own)",
            "p.positions",
            "position_digits(p.start + right_t)",
            "position_digits",
            "vec3<u32>(0xffffffffu, p.out_h, p.out_w)",
            "Place(image + n * p.x_batch, vec3<i32>(at.yzw) * strides() + firsts())",
        ),
    };
    let block = tile.right_block();
    let (vectors, stride) = (block.vectors(), block.stride());
    let distance = block.threads / vectors;
    let gathered = StagingCode {
        prologue: format!(
            "    let right_t = lane / {vectors}u;
    var at = {first};
    let by = {by}({distance}u);
    let sizes = {sizes};
"
        ),
        body: emit_each(tile.depth / distance, |i| {
            format!(
                "      {{
        let t = right_t + {}u;
        let term = {term};
        var v = vec4<f32>();
        if k + t < terms {{
          v = vec4<f32>(take(spot0, term), take(spot1, term), take(spot2, term), take(spot3, term));
        }}
        right[t * {stride}u + right_i] = v;
        at = advanced(at, by, sizes);
      }}
",
                i * distance
            )
        }),
    };
    let spots = emit_each(4, |l| {
        let own = format!("min(column + right_i * 4u + {l}u, columns() - 1u)");
        format!("  let spot{l} = {};\n", point.replace("own", &own))
    });
    let sum = tile.emit_sum(terms, &factor.emit_fill(tile.left_block(), read), &gathered);
    let sums = match side {
        Side::Out => sum,
        Side::Weight => format!("  for (var n = 0u; n < p.batch; n++) {{\n{sum}  }}\n"),
    };
    let position = format!("{position}  let right_i = lane % {vectors}u;\n{spots}");
    tile.emit_kernel(&position, &(sums + &tile.emit_stores("epilogue(b, g")))
}
