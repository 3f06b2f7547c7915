//! Variants with four elements per invocation, read and written as one vec4<f32>; all operands must be contiguous.

use super::THREADS;
use crate::dtype::DType;
use crate::kernel::{Params, Range, Variant};

/// Elements per invocation.
pub const ELEMENTS: usize = 4;

/// Whether `size` elements of all ranges are whole vectors of f32.
pub fn fits(size: usize, ranges: &[Range]) -> bool {
    size.is_multiple_of(ELEMENTS) && ranges.iter().all(is_whole)
}

/// Whether a range starts at a whole vector of f32.
pub fn is_whole(range: &Range) -> bool {
    range.dtype == DType::F32 && range.offset.is_multiple_of(16)
}

/// The number of workgroups for `size` elements.
pub fn count_groups(size: usize) -> u32 {
    (size / ELEMENTS).div_ceil(THREADS as usize) as u32
}

/// The variant of `params` with four elements per invocation: its third parameter is 1.
pub fn make_variant([function, dims, ..]: Params, bindings: usize) -> Variant {
    Variant { params: [function, dims, 1, 0], dtypes: vec![DType::F32; bindings], threads: THREADS }
}

/// WGSL: a binding as vectors, with a function that loads one (and one that stores it, if `written`).
pub fn emit_vectors(name: &str, binding: usize, written: bool) -> String {
    let access = if written { "read_write" } else { "read" };
    let mut out = format!(
        "@group(0) @binding({binding}) var<storage, {access}> {name}_vectors: array<vec4<f32>>;
fn load4_{name}(i: u32) -> vec4<f32> {{ return {name}_vectors[(p.{name}_at >> 2u) + i]; }}
"
    );
    if written {
        out += &format!(
            "fn store4_{name}(i: u32, v: vec4<f32>) {{ {name}_vectors[(p.{name}_at >> 2u) + i] = v; }}\n"
        );
    }
    out
}

/// WGSL: y = f of the operands, computed for each component of their vectors.
pub fn emit_map(names: &[&str], propagates_nan: bool) -> String {
    let mut out: String = names.iter().enumerate().map(|(i, name)| emit_vectors(name, i, false)).collect();
    out += &emit_vectors("y", names.len(), true);
    let arguments: Vec<String> = names.iter().map(|n| format!("{n}: f32")).collect();
    let nan: Vec<String> = names.iter().map(|n| format!("is_nan({n})")).collect();
    let checked = match propagates_nan {
        true => format!("if {} {{ return nan(); }} ", nan.join(" || ")),
        false => String::new(),
    };
    out += &format!(
        "fn element({}) -> f32 {{ {checked}return f({}); }}\n",
        arguments.join(", "),
        names.join(", ")
    );
    let loads: String = names.iter().map(|n| format!("  let {n} = load4_{n}(i);\n")).collect();
    let parts: Vec<String> = ["x", "y", "z", "w"]
        .iter()
        .map(|part| {
            let arguments: Vec<String> = names.iter().map(|n| format!("{n}.{part}")).collect();
            format!("element({})", arguments.join(", "))
        })
        .collect();
    out + &format!(
        "fn kernel(group: u32, lane: u32) {{
  let i = group * THREADS + lane;
  if i >= p.size / 4u {{ return; }}
{loads}  store4_y(i, vec4<f32>({}));
}}
",
        parts.join(", ")
    )
}
