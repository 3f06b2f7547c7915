//! Expands a kernel's WGSL body to a module: declarations, accessors, entry point.

mod blocks;
pub mod rows;

use std::fmt::Write;

use crate::dtype::DType;
use crate::kernel::{Access, Kernel, Params};

/// The module text of `kernel` for one parameter set.
///
/// Layout of the immediates: the number of groups; one element offset per binding (the part of a range's start below
/// the device's alignment); the kernel's scalars; and, if `is_divisible`, the first group of this dispatch.
pub fn emit_module(kernel: &Kernel, params: Params, dtypes: &[DType], threads: u32) -> String {
    let mut out = String::with_capacity(4096);
    let w = &mut out;
    let body = kernel
        .implementations
        .wgsl()
        .unwrap_or_else(|| panic!("{} was launched on a GPU", kernel.name))(params);
    if body.contains("<f16>") {
        w.push_str("enable f16;\n");
    }
    writeln!(w, "const THREADS: u32 = {threads}u;\nstruct P {{\n  groups: u32,").unwrap();
    for (name, _) in kernel.bindings {
        writeln!(w, "  {name}_at: u32,").unwrap();
    }
    for member in (kernel.scalars)() {
        writeln!(w, "  {}: {},", member.name, member.wgsl).unwrap();
    }
    if is_divisible(kernel) {
        w.push_str("  first_group: u32,\n");
    }
    writeln!(w, "}}\nvar<immediate> p: P;").unwrap();
    for (i, ((name, access), dtype)) in kernel.bindings.iter().zip(dtypes).enumerate() {
        let mode = if *access == Access::Read { "read" } else { "read_write" };
        let element = match dtype {
            DType::F32 => "f32",
            DType::I32 => "i32",
            DType::F16 | DType::BF16 | DType::Block(_) => "u32",
        };
        writeln!(w, "@group(0) @binding({i}) var<storage, {mode}> {name}: array<{element}>;").unwrap();
        if let DType::Block(kind) = dtype {
            w.push_str(&blocks::emit_loaders(name, *kind));
            continue;
        }
        emit_load(w, name, *dtype);
        if *access != Access::Read {
            emit_store(w, name, *dtype);
        }
        // A body accesses a binding either by elements or by vectors.
        if body.contains(&format!("load_vec4_{name}(")) {
            emit_vectors(w, name, i, mode, *dtype);
        }
    }
    w.push_str(NUMERIC);
    w.push_str(&body);
    let entry = if has_subgroups(&body) { ENTRY_OF_SUBGROUPS } else { ENTRY };
    w.push_str(&entry.replace("FIRST_GROUP", if is_divisible(kernel) { "p.first_group" } else { "0u" }));
    out
}

/// Words of a kernel's immediates, without the word for the first group.
pub fn count_words(kernel: &Kernel) -> usize {
    1 + kernel.bindings.len() + (kernel.scalars)().len()
}

/// Whether a launch may be split into several dispatches of groups: a word is left for the first group.
pub fn is_divisible(kernel: &Kernel) -> bool {
    count_words(kernel) < IMMEDIATE_WORDS
}

fn emit_load(w: &mut String, name: &str, dtype: DType) {
    match dtype {
        DType::F32 | DType::I32 => writeln!(
            w,
            "fn load_{name}(i: u32) -> {} {{ return {name}[p.{name}_at + i]; }}",
            if dtype == DType::F32 { "f32" } else { "i32" }
        ),
        DType::F16 => writeln!(
            w,
            "fn load_{name}(i: u32) -> f32 {{ let k = p.{name}_at + i; \
             let pair = unpack2x16float({name}[k >> 1u]); \
             return select(pair.x, pair.y, (k & 1u) == 1u); }}"
        ),
        DType::BF16 => writeln!(
            w,
            "fn load_{name}(i: u32) -> f32 {{ let k = p.{name}_at + i; \
             let pair = {name}[k >> 1u]; \
             return bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, (k & 1u) == 1u)); }}"
        ),
        DType::Block(_) => unreachable!("they have loaders of their own"),
    }
    .unwrap();
}

/// Accessors for vectors of four elements: `load_vec4_` takes the index of a vector, relative to the range's start,
/// which must be at a whole vector. Only f32 can be stored as vectors.
fn emit_vectors(w: &mut String, name: &str, binding: usize, mode: &str, dtype: DType) {
    let (vector, value) = match dtype {
        DType::F32 => ("vec4<f32>", "v"),
        DType::I32 => ("vec4<i32>", "vec4<f32>(v)"),
        DType::F16 => ("vec2<u32>", "vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y))"),
        DType::BF16 => (
            "vec2<u32>",
            "bitcast<vec4<f32>>(vec4<u32>(v.x << 16u, v.x & 0xffff0000u, v.y << 16u, v.y & 0xffff0000u))",
        ),
        DType::Block(_) => unreachable!("they have loaders of their own"),
    };
    writeln!(
        w,
        "@group(0) @binding({binding}) var<storage, {mode}> {name}_vec4: array<{vector}>;
fn load_vec4_{name}(i: u32) -> vec4<f32> {{ let v = {name}_vec4[(p.{name}_at >> 2u) + i]; return {value}; }}"
    )
    .unwrap();
    if mode == "read_write" && dtype == DType::F32 {
        writeln!(
            w,
            "fn store_vec4_{name}(i: u32, v: vec4<f32>) {{ {name}_vec4[(p.{name}_at >> 2u) + i] = v; }}"
        )
        .unwrap();
    }
}

/// Half types are stored in pairs, since two invocations would race for one word: `store2_` takes the index of the
/// pair.
fn emit_store(w: &mut String, name: &str, dtype: DType) {
    match dtype {
        DType::F32 | DType::I32 => writeln!(
            w,
            "fn store_{name}(i: u32, v: {}) {{ {name}[p.{name}_at + i] = v; }}",
            if dtype == DType::F32 { "f32" } else { "i32" }
        ),
        DType::F16 => writeln!(
            w,
            "fn store2_{name}(i: u32, a: f32, b: f32) \
             {{ {name}[(p.{name}_at >> 1u) + i] = f16_bits(a) | (f16_bits(b) << 16u); }}"
        ),
        DType::BF16 => writeln!(
            w,
            "fn store2_{name}(i: u32, a: f32, b: f32) \
             {{ {name}[(p.{name}_at >> 1u) + i] = bf16_bits(a) | (bf16_bits(b) << 16u); }}"
        ),
        DType::Block(_) => unreachable!("no kernel writes blocks"),
    }
    .unwrap();
}

/// Whether a text calls a built-in function of subgroups.
pub fn has_subgroups(text: &str) -> bool {
    let calls = |rest: &str| rest.starts_with(|c: char| c.is_ascii_uppercase());
    text.match_indices("subgroup").any(|(at, name)| calls(&text[at + name.len()..]))
}

/// Words of immediates that all supported GPUs have: 128 bytes.
pub const IMMEDIATE_WORDS: usize = 32;

/// WGSL: sums and flags over a workgroup.
pub const WORKGROUP: &str = include_str!("workgroup.wgsl");
/// WGSL: sums and flags over a workgroup, with subgroups.
pub const WORKGROUP_OF_SUBGROUPS: &str = include_str!("workgroup_subgroups.wgsl");
/// WGSL: online log-sum-exp, with PyTorch's treatment of NaN and infinities.
pub const LOG_SUM: &str = include_str!("log_sum.wgsl");
/// WGSL: log-sum-exp over a workgroup; needs `WORKGROUP` and `LOG_SUM`.
pub const LOG_SUM_ROWS: &str = include_str!("log_sum_rows.wgsl");
/// WGSL: log-sum-exp over a workgroup with subgroups; needs `WORKGROUP_OF_SUBGROUPS`.
pub const LOG_SUM_ROWS_OF_SUBGROUPS: &str = include_str!("log_sum_rows_subgroups.wgsl");

/// WGSL: the high word of a product of two words.
pub const HIGH_WORD: &str = include_str!("high_word.wgsl");
/// WGSL: Philox 4x32-10; needs `HIGH_WORD`.
pub const PHILOX: &str = include_str!("philox.wgsl");

/// WGSL: sin and cos of every number.
pub const TRIGONOMETRIC: &str = include_str!("trigonometric.wgsl");

/// WGSL does not define NaN, so finiteness is tested on the bits; nor does it define the rounding of `pack2x16float`,
/// so halves are rounded here: to nearest, ties to even.
const NUMERIC: &str = "
fn is_finite(v: f32) -> bool { return (bitcast<u32>(v) & 0x7f800000u) != 0x7f800000u; }
fn is_nan(v: f32) -> bool { return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u; }
fn nan() -> f32 { return bitcast<f32>(p.groups | 0x7fc00000u); }
fn bf16_bits(v: f32) -> u32 {
  let b = bitcast<u32>(v);
  if (b & 0x7fffffffu) > 0x7f800000u { return (b >> 16u) | 0x40u; }
  return (b + 0x7fffu + ((b >> 16u) & 1u)) >> 16u;
}
fn f16_bits(v: f32) -> u32 {
  let b = bitcast<u32>(v);
  let sign = (b >> 16u) & 0x8000u;
  let a = b & 0x7fffffffu;
  if a > 0x7f800000u { return sign | 0x7e00u; }
  if a >= 0x477ff000u { return sign | 0x7c00u; }
  if a >= 0x38800000u { return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u); }
  // Below 2^-14 the unit in the last place is 2^-24.
  let e = a >> 23u;
  if e < 102u { return sign; }
  let m = (a & 0x7fffffu) | 0x800000u;
  let shift = 126u - e;
  let q = m >> shift;
  let rest = m & ((1u << shift) - 1u);
  let tie = 1u << (shift - 1u);
  return sign | (q + u32(rest > tie || (rest == tie && (q & 1u) == 1u)));
}
";

/// Groups past 65,535 use a second dimension of the grid.
const ENTRY: &str = "
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let group = FIRST_GROUP + wid.x + wid.y * nwg.x;
  if group >= p.groups { return; }
  kernel(group, lane);
}
";

/// The entry point of a body with subgroup functions: lanes are numbered through one subgroup, then the next. The
/// subgroup size is counted, since a driver may report another size than it runs.
const ENTRY_OF_SUBGROUPS: &str = "
var<private> subgroup_at: u32;
var<private> subgroup_lane: u32;
var<private> subgroup_lanes: u32;
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>,
        @builtin(subgroup_id) at: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let group = FIRST_GROUP + wid.x + wid.y * nwg.x;
  if group >= p.groups { return; }
  subgroup_at = at;
  subgroup_lane = lane;
  subgroup_lanes = subgroupAdd(1u);
  kernel(group, at * subgroup_lanes + lane);
}
";
