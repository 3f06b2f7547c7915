//! Products of a few terms: 64 invocations hold 4 × 4 elements of C each and read their factors directly, since the
//! loop is too short to stage anything. They are bit-identical to the tiles.

use super::emit::{COMPONENTS, emit_each, emit_grid};
use super::plan::AccessPatterns;
use super::stage::Read;

/// Rows and columns of C per workgroup.
pub const SIDE: u32 = 32;
pub const THREADS: u32 = 64;

/// The WGSL body. C is read and written by vectors where the factors are.
pub fn emit_body(reads: AccessPatterns, position: &str, bias: bool) -> String {
    let wide = reads != AccessPatterns::ELEMENTS;
    // Terms per read.
    let step = if reads.a == Read::Terms { 4 } else { 1 };
    let loads = match wide {
        false => {
            emit_each(4, |i| format!("    let u{i} = load_a(a{i} + k * p.a_column);\n"))
                + "    let v0 = vec4<f32>(load_b(b0 + k * p.b_row), load_b(b1 + k * p.b_row), \
                   load_b(b2 + k * p.b_row), load_b(b3 + k * p.b_row));\n"
        }
        true => {
            let u = match reads.a {
                Read::Terms => emit_each(4, |i| format!("    let u{i} = load_vec4_a((a{i} + k) / 4u);\n")),
                _ => "    let u0 = load_vec4_a((a0 + k * p.a_column) / 4u);\n".into(),
            };
            let v = match reads.b {
                Read::Terms => {
                    emit_each(4, |j| format!("    let w{j} = load_vec4_b((b{j} + k) / 4u);\n"))
                        + &emit_each(4, |t| {
                            let part = COMPONENTS[t as usize];
                            format!("    let v{t} = vec4<f32>(w0.{part}, w1.{part}, w2.{part}, w3.{part});\n")
                        })
                }
                _ => emit_each(step, |t| {
                    format!("    let v{t} = load_vec4_b((b0 + (k + {t}u) * p.b_row) / 4u);\n")
                }),
            };
            u + &v
        }
    };
    let left = |i: u32, t: u32| match reads.a {
        Read::Elements => format!("u{i}"),
        Read::Terms => format!("u{i}.{}", COMPONENTS[t as usize]),
        Read::Lines => format!("u0.{}", COMPONENTS[i as usize]),
    };
    let products =
        emit_grid(step, 4, |t, i| format!("    c{i} = fma(vec4<f32>({}), v{t}, c{i});\n", left(i, t)));
    let stores = match wide {
        true => emit_each(4, |i| format!("  epilogue4(z, row + {i}u, column, c{i});\n")),
        false => emit_grid(4, 4, |i, j| {
            format!("  epilogue(z, row + {i}u, column + {j}u, c{i}.{});\n", COMPONENTS[j as usize])
        }),
    };
    let epilogue = if wide { emit_epilogue4(bias) } else { String::new() };
    format!(
        "{epilogue}fn kernel(group: u32, lane: u32) {{
{position}  row += lane / 8u * 4u;
  column += lane % 8u * 4u;
  let a_last = p.m - {lines_a}u;
  let b_last = p.n - {lines_b}u;
{starts}{zeros}  for (var k = 0u; k < p.k; k += {step}u) {{
{loads}{products}  }}
{stores}}}
",
        lines_a = if reads.a == Read::Lines { 4 } else { 1 },
        lines_b = if reads.b == Read::Lines { 4 } else { 1 },
        starts = emit_each(4, |s| format!(
            "  let a{s} = z * p.a_batch + min(row + {s}u, a_last) * p.a_row;
  let b{s} = z * p.b_batch + min(column + {s}u, b_last) * p.b_column;
"
        )),
        zeros = emit_each(4, |i| format!("  var c{i} = vec4<f32>();\n")),
    )
}

/// WGSL: the epilogue of four columns.
fn emit_epilogue4(bias: bool) -> String {
    let add_bias = match bias {
        true => {
            "    v += vec4<f32>(load_bias(column), load_bias(column + 1u), load_bias(column + 2u), \
             load_bias(column + 3u));\n"
        }
        false => "",
    };
    format!(
        "fn epilogue4(z: u32, row: u32, column: u32, sum: vec4<f32>) {{
  if (row < p.m) & (column < p.n) {{
    let at = (z * p.c_batch + row * p.c_row + column) / 4u;
    var v = p.alpha * sum;
{add_bias}    if p.accumulate == 1u {{ v += load_vec4_c(at); }}
    store_vec4_c(at, v);
  }}
}}
"
    )
}
