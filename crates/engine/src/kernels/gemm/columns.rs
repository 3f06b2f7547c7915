//! Products of a few rows by a row-major B: decoding by weights stored as [in, out] (GPT-2), which is bound by memory.
//!
//! A workgroup computes 32 columns of C. 8 invocations read four contiguous elements each of a term, a line of 128
//! bytes in f32; 32 groups of these share the terms, each every 32nd, with four loads in flight. B is read once; A, an
//! element for each vector of B, comes from the cache. Then the groups' sums are added in pairs: the halves first, then
//! the halves of the rest, in the same order on every device.
//!
//! A tile would compute 16 rows per workgroup to store one, and read 16 terms between two barriers.

use super::emit::{COMPONENTS, emit_each, emit_grid};

pub const THREADS: u32 = 256;
/// Columns per workgroup.
pub const COLUMNS: u32 = 32;
/// Vectors of four columns.
const ACROSS: u32 = COLUMNS / 4;
/// Terms that a workgroup reads at once.
const TERMS: u32 = THREADS / ACROSS;
/// Terms that an invocation has in flight.
const AHEAD: u32 = 4;

/// The WGSL body. Sums of `rows` rows take 4 KiB each, so at most four rows are possible.
pub fn emit_body(rows: u32, wide: bool, position: &str) -> String {
    let a_offsets =
        emit_each(rows, |i| format!("  let a{i} = z * p.a_batch + min(row + {i}u, p.m - 1u) * p.a_row;\n"));
    let b_offsets = match wide {
        true => "  let b0 = z * p.b_batch + min(own, p.n - 4u);\n".to_string(),
        false => emit_each(4, |j| {
            format!("  let b{j} = z * p.b_batch + min(own + {j}u, p.n - 1u) * p.b_column;\n")
        }),
    };
    let load = |s: u32| {
        let at = format!("(k + {}u) * p.b_row", s * TERMS);
        match wide {
            true => format!("load_vec4_b((b0 + {at}) / 4u)"),
            false => {
                let all: Vec<_> = (0..4).map(|j| format!("load_b(b{j} + {at})")).collect();
                format!("vec4<f32>({})", all.join(", "))
            }
        }
    };
    let terms = |count: u32| {
        emit_each(count, |s| format!("    let v{s} = {};\n", load(s)))
            + &emit_grid(count, rows, |s, i| {
                let at = format!("a{i} + (k + {}u) * p.a_column", s * TERMS);
                format!("    c{i} = fma(vec4<f32>(load_a({at})), v{s}, c{i});\n")
            })
    };
    format!(
        "var<workgroup> sums: array<vec4<f32>, {size}>;
fn kernel(group: u32, lane: u32) {{
{position}  let own = column + lane % {ACROSS}u * 4u;
{a_offsets}{b_offsets}{zeros}  var k = lane / {ACROSS}u;
  for (; k + {last}u < p.k; k += {step}u) {{
{ahead}  }}
  for (; k < p.k; k += {TERMS}u) {{
{one}  }}
{share}  workgroupBarrier();
  for (var step = {half}u; step >= {ACROSS}u; step /= 2u) {{
    if lane < step {{
{add}    }}
    workgroupBarrier();
  }}
  if lane < {ACROSS}u {{
{stores}  }}
}}
",
        size = rows * THREADS,
        zeros = emit_each(rows, |i| format!("  var c{i} = vec4<f32>();\n")),
        last = (AHEAD - 1) * TERMS,
        step = AHEAD * TERMS,
        ahead = terms(AHEAD),
        one = terms(1),
        share = emit_each(rows, |i| format!("  sums[{}u + lane] = c{i};\n", i * THREADS)),
        half = THREADS / 2,
        add = emit_each(rows, |i| {
            format!("      sums[{0}u + lane] += sums[{0}u + lane + step];\n", i * THREADS)
        }),
        stores = emit_grid(rows, 4, |i, j| {
            let sum = format!("sums[{}u + lane].{}", i * THREADS, COMPONENTS[j as usize]);
            format!("    epilogue(z, row + {i}u, own + {j}u, {sum});\n")
        }),
    )
}
