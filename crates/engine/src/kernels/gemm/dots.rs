//! Dot products of a few rows with columns whose terms are contiguous: decoding, which is bound by memory.
//!
//! Each lane sums the terms from 4 · lane on, four of every 256; then the sums are added in pairs: neighbouring lanes
//! first, then neighbouring pairs, and so on. Lanes of a subgroup exchange sums by shuffles, in the same pairs, so the
//! subgroup size changes no bit.

use super::emit::{COMPONENTS, emit_each, emit_grid};

pub const THREADS: u32 = 64;
pub const COLUMNS: u32 = 4;

pub fn emit_body(rows: u32, wide: bool, subgroups: bool, position: &str) -> String {
    let outputs = rows * COLUMNS;
    let a_offsets =
        emit_each(rows, |i| format!("  let a{i} = z * p.a_batch + min(row + {i}u, p.m - 1u) * p.a_row;\n"));
    let b_offsets = emit_each(COLUMNS, |j| {
        format!("  let b{j} = z * p.b_batch + min(column + {j}u, p.n - 1u) * p.b_column;\n")
    });
    let zeros = emit_grid(rows, COLUMNS, |i, j| format!("  var c{i}_{j} = 0.0;\n"));
    let sums = match wide {
        true => {
            emit_each(COLUMNS, |j| format!("    let v{j} = load_vec4_b((b{j} + k) / 4u);\n"))
                + &emit_each(rows, |i| {
                    format!("    let u{i} = load_vec4_a((a{i} + k) / 4u);\n")
                        + &emit_grid(4, COLUMNS, |t, j| {
                            let part = COMPONENTS[t as usize];
                            format!("    c{i}_{j} = fma(u{i}.{part}, v{j}.{part}, c{i}_{j});\n")
                        })
                })
        }
        false => emit_each(4, |t| {
            format!(
                "    if k + {t}u < p.k {{
{}{}    }}
",
                emit_each(COLUMNS, |j| format!("      let v{j} = load_b(b{j} + k + {t}u);\n")),
                emit_each(rows, |i| {
                    format!("      let u{i} = load_a(a{i} + k + {t}u);\n")
                        + &emit_each(COLUMNS, |j| format!("      c{i}_{j} = fma(u{i}, v{j}, c{i}_{j});\n"))
                })
            )
        }),
    };
    let emit_each_sum = |line: &dyn Fn(u32, String) -> String| {
        emit_grid(rows, COLUMNS, |i, j| line(i * COLUMNS + j, format!("c{i}_{j}")))
    };
    let shuffles = match subgroups {
        true => format!(
            "  for (var step = 1u; step < near; step *= 2u) {{
{}  }}
",
            emit_each_sum(&|_, c| format!("    {c} += subgroupShuffleXor({c}, step);\n"))
        ),
        false => String::new(),
    };
    format!(
        "var<workgroup> sums: array<f32, {size}>;
fn kernel(group: u32, lane: u32) {{
{position}{a_offsets}{b_offsets}{zeros}  for (var k = lane * 4u; k < p.k; k += THREADS * 4u) {{
{sums}  }}
  let near = {near};
{shuffles}{share}  workgroupBarrier();
  for (var step = near; step < THREADS; step *= 2u) {{
    for (var at = lane * step * 2u; at < {size}u; at += THREADS * step * 2u) {{ sums[at] += sums[at + step]; }}
    workgroupBarrier();
  }}
  if lane < {outputs}u {{
    epilogue(z, row + lane / {COLUMNS}u, column + lane % {COLUMNS}u, sums[lane * THREADS]);
  }}
}}
",
        size = outputs * THREADS,
        near = if subgroups { "min(p.subgroup, THREADS)" } else { "1u" },
        share = emit_each_sum(&|o, c| format!("  sums[{o}u * THREADS + lane] = {c};\n")),
    )
}
