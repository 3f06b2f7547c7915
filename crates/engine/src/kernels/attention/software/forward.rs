//! The text of o and its log-sum-exp.

use super::tile::{ACROSS, Source};
use super::{K, Q, Shader};
use crate::kernel::Params;
use crate::kernels::gemm::pairs::LANES;
use crate::kernels::gemm::wgsl::each;

pub fn forward(params: Params) -> String {
    let shader = Shader::of_queries(params);
    let tile = shader.tile;
    let bindings = [("q", 0, "read"), ("k", 1, "read"), ("v", 2, "read"), ("o", 6, "read_write")];
    let o_at = |i: u32| format!("p.o_at + query_start(h, t + {i}u)");
    let live = |i: u32| format!("t + {i}u <= last");
    // Of a lane's row t + lane + 8 · g.
    let begun = tile.each_group(|g| {
        format!(
            "  var high{g} = HIDDEN;
  var sum{g} = 0.0;
  if p.first == 0u {{
    let before = load_lse(lse_start(h, min(t + lane + {}u, last)));
    if is_nan(before) {{ sum{g} = nan(); }}
    if before >= FLOOR {{ high{g} = before; sum{g} = 1.0; }}
  }}
",
            g * LANES
        )
    });
    let state = begun
        + &tile.zeros("o")
        + &format!("  if p.first == 0u {{\n{}  }}\n", tile.load("o", "o_words", live, o_at));
    let highest = each(tile.rows, |i| {
        let looked = each(ACROSS, |j| {
            let visible = shader.query_sees(i, j);
            format!("    c{i}_{j} = looked_at(scale * c{i}_{j}, {visible});\n")
        });
        let highest = |j: u32| format!("max(for_max(c{i}_{j}), for_max(c{i}_{}))", j + 1);
        format!("{looked}    let highest{i} = max({}, {});\n", highest(0), highest(2))
    });
    let tops = tile.each_group(|g| {
        format!(
            "    let before{g} = max(high{g}, FLOOR);
    high{g} = max(high{g}, tile_high{g});
    let top{g} = max(high{g}, FLOOR);
    let keep{g} = exp(before{g} - top{g});
"
        )
    });
    let weights = tile.each_row("top", |i, top| {
        let weights = each(ACROSS, |j| format!("    c{i}_{j} = weight_of(c{i}_{j}, top_of{i});\n"));
        format!(
            "    let top_of{i} = {top};\n{weights}    let total{i} = (c{i}_0 + c{i}_1) + (c{i}_2 + c{i}_3);\n"
        )
    });
    let sums = tile.each_group(|g| format!("    sum{g} = sum{g} * keep{g} + tile_sum{g};\n"));
    let kept = tile.each_row("keep", |i, keep| {
        let columns = each(tile.width * tile.words, |e| format!("    o{i}_{e} *= keep_of{i};\n"));
        format!("    let keep_of{i} = {keep};\n{columns}")
    });
    let soften = highest
        + &tile.over_lanes("max", "highest", "tile_high")
        + &tops
        + &weights
        + &tile.over_lanes("sum", "total", "tile_sum")
        + &sums
        + &kept;
    let outputs = tile.weigh(
        &[("o", "c", Source { array: "v_words", place: "0u" })],
        "count",
        |j| format!("p.v_at + key_start(h, min(begin + 4u * l + {j}, p.keys - 1u))"),
        |value| format!("        found = max(found, bitcast<u32>({value}) & 0x7fffffffu);\n"),
    );
    let finish = tile.each_group(|g| {
        format!(
            "  let bad{g} = is_nan(sum{g}) || (high{g} > HIDDEN && sum{g} == 0.0);
  let factor{g} = select(select(0.0, 1.0 / sum{g}, sum{g} != 0.0), nan(), bad{g});
  let total_of{g} = select(select(HIDDEN, top_of(high{g}) + log(sum{g}), sum{g} != 0.0), nan(), bad{g});
"
        )
    });
    let finish = finish
        + "  let clean = !subgroupAny(found > 0x7f7fffffu);\n"
        + &tile.each_row("factor", |i, factor| format!("  let factor_of{i} = {factor};\n"))
        + &tile.store(
            "o",
            "o_words",
            |i| format!("factor_of{i}"),
            |i| format!("clean && {}", live(i)),
            None,
            o_at,
        )
        + &tile.each_group(|g| {
            let row = format!("t + lane + {}u", g * LANES);
            format!("  if clean && {row} <= last {{ store_lse(lse_start(h, {row}), total_of{g}); }}\n")
        })
        + &format!(
            "  for (var g = 0u; g < {}u; g++) {{
    if clean || t + lane + 8u * g > last {{ break; }}
    var total = total_of0;
{}    apart(h, t + lane + 8u * g, total);
  }}
",
            tile.groups(),
            each(tile.groups() - 1, |g| format!("    if g == {0}u {{ total = total_of{0}; }}\n", g + 1)),
        );
    shader.head(&bindings)
        + &tile.of_words()
        + &include_str!("forward.wgsl")
            .replace("QUERIES", &(shader.queries_at(&["q"]) + &shader.query_rows()))
            .replace("STATE", &state)
            .replace("KEYS", &(shader.keys_at(&["k"]) + &shader.key_columns()))
            .replace("SCORES", &tile.dots("c", Q, K))
            .replace("SOFTEN", &soften)
            .replace("OUTPUTS", &outputs)
            .replace("FINISH", &finish)
}
