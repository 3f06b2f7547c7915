//! Access to a row by a workgroup: by single elements or by vectors of four, with sums through workgroup memory or
//! through subgroups. A body is written once, over cells.

use super::{LOG_SUM, LOG_SUM_ROWS, LOG_SUM_ROWS_OF_SUBGROUPS, WORKGROUP, WORKGROUP_OF_SUBGROUPS};
use crate::dtype::DType;
use crate::kernel::{Access, Range};
use crate::profile::Profile;

/// Elements per vector.
pub const ELEMENTS: usize = 4;

/// A variant of a kernel over rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowConfig {
    /// Whether rows are read by vectors.
    pub vectors: bool,
    /// Whether sums go through subgroups.
    pub subgroups: bool,
}

impl RowConfig {
    pub fn list() -> impl Iterator<Item = RowConfig> {
        (0..4).map(RowConfig::from_param)
    }

    /// The variant for rows of `n` elements in `ranges`, which start at a multiple of n or of a multiple of `n`.
    pub fn new<'a>(profile: &Profile, n: usize, mut ranges: impl Iterator<Item = &'a Range>) -> RowConfig {
        let whole = |range: &Range| range.dtype == DType::F32 && range.offset.is_multiple_of(16);
        let vectors = n.is_multiple_of(ELEMENTS) && ranges.all(whole);
        RowConfig { vectors, subgroups: profile.subgroup > 0 }
    }

    /// The kernel's parameter.
    pub fn param(self) -> u32 {
        self.vectors as u32 | (self.subgroups as u32) << 1
    }

    pub fn from_param(param: u32) -> RowConfig {
        RowConfig { vectors: param & 1 == 1, subgroups: param & 2 == 2 }
    }

    /// WGSL: sums and flags over a workgroup.
    pub fn workgroup(self) -> &'static str {
        if self.subgroups { WORKGROUP_OF_SUBGROUPS } else { WORKGROUP }
    }

    /// WGSL: the same, and log-sum-exp; needs cells.
    pub fn emit_log_sum(self) -> String {
        let rows = if self.subgroups { LOG_SUM_ROWS_OF_SUBGROUPS } else { LOG_SUM_ROWS };
        let terms = if self.vectors { "with_terms" } else { "with_term" };
        let terms = format!("fn terms(a: LogSum, v: Cell) -> LogSum {{ return {terms}(a, v); }}\n");
        [self.workgroup(), LOG_SUM, rows, &terms].concat()
    }

    /// WGSL: the type of a cell, and the accessors of the bindings `names`: `get_x(i)`, `put_y(i, v)`, and for one
    /// element `one_x(i)`.
    pub fn emit_cells(self, bindings: &[(&'static str, Access)], names: &[&str]) -> String {
        let mut out = String::from(if self.vectors { VECTORS } else { SINGLE });
        for name in names {
            let (index, (_, access)) =
                bindings.iter().enumerate().find(|(_, (n, _))| n == name).expect("a binding of the kernel");
            let written = *access != Access::Read;
            out += &if self.vectors { emit_vector(name, index, written) } else { emit_single(name, written) };
        }
        out
    }
}

fn emit_single(name: &str, written: bool) -> String {
    let put = match written {
        true => format!("fn put_{name}(i: u32, v: f32) {{ store_{name}(i, v); }}\n"),
        false => String::new(),
    };
    format!(
        "fn get_{name}(i: u32) -> f32 {{ return load_{name}(i); }}
fn one_{name}(i: u32) -> f32 {{ return load_{name}(i); }}
{put}"
    )
}

fn emit_vector(name: &str, index: usize, written: bool) -> String {
    let (access, put) = match written {
        true => (
            "read_write",
            format!("fn put_{name}(i: u32, v: vec4<f32>) {{ {name}_cells[(p.{name}_at >> 2u) + i] = v; }}\n"),
        ),
        false => ("read", String::new()),
    };
    format!(
        "@group(0) @binding({index}) var<storage, {access}> {name}_cells: array<vec4<f32>>;
fn get_{name}(i: u32) -> vec4<f32> {{ return {name}_cells[(p.{name}_at >> 2u) + i]; }}
fn one_{name}(i: u32) -> f32 {{ return {name}_cells[(p.{name}_at + i) >> 2u][i & 3u]; }}
{put}"
    )
}

const SINGLE: &str = "
alias Cell = f32;
alias Truth = bool;
alias Places = i32;
const CELL = 1u;
fn nans(v: f32) -> bool { return is_nan(v); }
fn odd(v: f32) -> bool { return !is_finite(v); }
fn some(v: bool) -> bool { return v; }
fn across(v: f32) -> f32 { return v; }
// Of an element each in the row, of cell k.
fn places(k: u32) -> i32 { return i32(k); }
";

const VECTORS: &str = "
alias Cell = vec4<f32>;
alias Truth = vec4<bool>;
alias Places = vec4<i32>;
const CELL = 4u;
fn nans(v: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u); }
fn odd(v: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u); }
fn some(v: vec4<bool>) -> bool { return any(v); }
fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }
// Of an element each in the row, of cell k.
fn places(k: u32) -> vec4<i32> { return vec4<i32>(i32(4u * k)) + vec4<i32>(0, 1, 2, 3); }
";
