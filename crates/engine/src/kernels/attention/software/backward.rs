//! The text of the gradients.

use super::tile::{ACROSS, Source};
use super::{D_O, K, LANES, MASK, Q, SEGMENTS, Shader, V};
use crate::kernel::Params;
use crate::kernels::gemm::wgsl::each;

/// P and dS of row i and column j, in the place of the scores and of do vᵀ.
fn differentiated(i: u32, j: u32, lse: &str, delta: &str, visible: &str) -> String {
    format!(
        "    {{
      let p_ij = weight_of(scale * c{i}_{j} - {lse});
      let visible = {visible};
      c{i}_{j} = select(0.0, p_ij, visible);
      d{i}_{j} = select(0.0, p_ij * (d{i}_{j} - {delta}), visible);
    }}
"
    )
}

/// A row's log-sum-exp as it is taken off: NaN stays.
const LSE: &str = "fn lse_of(h: Head, t: u32) -> f32 {
  let lse = load_lse(lse_start(h, t));
  return select(max(lse, FLOOR), lse, is_nan(lse));
}
fn weight_of(s: f32) -> f32 { return select(exp(s), nan(), is_nan(s)); }
";

const READS: [(&str, u32, &str); 4] =
    [("q", 0, "read"), ("k", 1, "read"), ("v", 2, "read"), ("d_o", 3, "read")];

pub fn backward_q(params: Params) -> String {
    let shader = Shader::of_queries(params);
    let tile = shader.tile;
    let rows = tile.each_group(|g| {
        let row = format!("min(t + lane + {}u, last)", g * LANES);
        format!("  let lse{g} = lse_of(h, {row});\n  let delta{g} = load_delta(lse_start(h, {row}));\n")
    });
    let differentiate = tile.each_row("lse", |i, lse| format!("    let lse_of{i} = {lse};\n"))
        + &tile.each_row("delta", |i, delta| format!("    let delta_of{i} = {delta};\n"))
        + &tile.each_sum(|i, j| {
            let visible = shader.query_sees(i, j);
            differentiated(i, j, &format!("lse_of{i}"), &format!("delta_of{i}"), &visible)
        });
    let d_queries = tile.weigh(
        &[("sum", "d", Source { array: "k_words", place: "0u" })],
        "count",
        |j| format!("p.k_at + key_start(h, min(begin + 4u * l + {j}, p.keys - 1u))"),
        |_| String::new(),
    );
    let finish = tile.store(
        "sum",
        "d_q_words",
        |_| "scale".into(),
        |i| format!("t + {i}u <= last"),
        Some("p.first == 0u"),
        |i| format!("p.d_q_at + query_start(h, t + {i}u)"),
    );
    shader.head(&[&READS[..], &[("d_q", 9, "read_write")]].concat())
        + LSE
        + &include_str!("backward_q.wgsl")
            .replace("QUERIES", &(shader.queries_at(&["q", "d_o"]) + &shader.query_rows()))
            .replace("STATE", &(rows + &tile.zeros("sum")))
            .replace("KEYS", &(shader.keys_at(&["k", "v"]) + &shader.key_columns()))
            .replace("D_SCORES", &tile.dots("d", D_O, V))
            .replace("SCORES", &tile.dots("c", Q, K))
            .replace("DIFFERENTIATE", &differentiate)
            .replace("SUMS", &d_queries)
            .replace("FINISH", &finish)
}

pub fn backward_kv(params: Params) -> String {
    let shader = Shader::of_keys(params);
    let (tile, sight) = (shader.tile, shader.sight);
    let mut keys: String = ["k", "v"]
        .iter()
        .map(|name| {
            tile.rows_at(name, "min(begin + lane + GROUP, last_key)", |row| {
                format!("p.{name}_at + key_start(h, {row})")
            })
        })
        .collect();
    let label = |name: &str, load: &str, batch: &str| {
        tile.each_group(|g| {
            let at = format!("h.b * {batch} + min(begin + lane + {}u, last_key)", g * LANES);
            format!("  let {name}s{g} = {load}({at});\n")
        }) + &tile.each_row(&format!("{name}s"), |i, of| format!("  let {name}{i} = {of};\n"))
    };
    if sight.has(SEGMENTS) {
        keys += &label("key_segment", "load_key_segment", "p.segment_batch");
    }
    if sight.has(MASK) {
        keys += &label("key_mask", "load_mask", "p.mask_batch");
    }
    keys += &each(tile.rows, |i| {
        let shown = if sight.has(MASK) { format!("key_mask{i} != 0") } else { "true".into() };
        format!("  let key{i} = p.key_at + begin + {i}u;\n  let shown{i} = {shown};\n")
    });
    let queries: String = ["q", "d_o"]
        .iter()
        .map(|name| {
            tile.columns_at(name, "min(t + 4u * lane + COLUMN, last)", |row| {
                format!("p.{name}_at + query_start(h, {row})")
            })
        })
        .collect();
    let queries = queries
        + &each(ACROSS, |j| {
            let segment = match sight.has(SEGMENTS) {
                true => format!(
                    "    let query_segment{j} = load_query_segment(h.b * p.segment_batch + min(own{j}, last));\n"
                ),
                false => String::new(),
            };
            format!(
                "    let own{j} = t + {ACROSS}u * lane + {j}u;
    let query{j} = p.query_at + own{j};
    let lse{j} = lse_of(h, min(own{j}, last));
    let delta{j} = load_delta(lse_start(h, min(own{j}, last)));
{segment}"
            )
        });
    let differentiate = tile.each_sum(|i, j| {
        let visible = sight.sees(
            &format!("shown{i} & (own{j} <= last)"),
            &format!("query{j}"),
            &format!("key{i}"),
            [&format!("query_segment{j}"), &format!("key_segment{i}")],
        );
        differentiated(i, j, &format!("lse{j}"), &format!("delta{j}"), &visible)
    });
    // q and do lie alike; their bindings start apart.
    let start = |name: &'static str| match name {
        "q" => Source { array: "q_words", place: "p.q_at / WIDTH" },
        _ => Source { array: "d_o_words", place: "p.d_o_at / WIDTH" },
    };
    let sums = tile.weigh(
        &[("d_value", "c", start("d_o")), ("d_key", "d", start("q"))],
        "count",
        |j| format!("query_start(h, min(t + 4u * l + {j}, last))"),
        |_| String::new(),
    );
    let store = |sums: &str, array: &str, place: &str, factor: &str| {
        tile.store(
            sums,
            array,
            |_| factor.into(),
            |i| format!("begin + {i}u <= last_key"),
            Some("p.first == 0u"),
            |i| format!("p.{place} + key_start(h, begin + {i}u)"),
        )
    };
    let finish =
        store("d_value", "d_v_words", "d_v_at", "1.0") + &store("d_key", "d_k_words", "d_k_at", "scale");
    shader.head(&[&READS[..], &[("d_k", 9, "read_write"), ("d_v", 10, "read_write")]].concat())
        + LSE
        + &include_str!("backward_kv.wgsl")
            .replace("KEYS", &keys)
            .replace("STATE", &(tile.zeros("d_value") + &tile.zeros("d_key")))
            .replace("QUERIES", &queries)
            .replace("D_SCORES", &tile.dots("d", V, D_O))
            .replace("SCORES", &tile.dots("c", K, Q))
            .replace("DIFFERENTIATE", &differentiate)
            .replace("SUMS", &sums)
            .replace("FINISH", &finish)
}
