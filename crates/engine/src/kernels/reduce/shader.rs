//! The shaders' text.

use super::{Config, REDUCE, Reduction};
use crate::kernel::Params;
use crate::kernel::shader::rows::RowConfig;

pub fn emit_reduce(params: Params) -> String {
    match Config::from_params(params) {
        Config::Whole { reduction, columns } => emit_integer_functions(reduction, columns),
        Config::Columns(reduction) => {
            // A column has cells of one element.
            let single = RowConfig { vectors: false, subgroups: false };
            [&emit_float_functions(reduction, single), include_str!("columns.wgsl")].concat()
        }
        Config::Rows(reduction, config) => {
            let joint = match (reduction, config.subgroups) {
                (Reduction::Sum, _) => SUM,
                (_, true) => include_str!("extreme_subgroups.wgsl"),
                (_, false) => include_str!("extreme.wgsl"),
            };
            let joint = match reduction {
                Reduction::Max => joint.replace("subgroupEXTREME", "subgroupMax").replace("EXTREME", "max"),
                _ => joint.replace("subgroupEXTREME", "subgroupMin").replace("EXTREME", "min"),
            };
            [&emit_float_functions(reduction, config), config.workgroup(), &joint, include_str!("rows.wgsl")]
                .concat()
        }
    }
}

const SUM: &str = "fn joint(lane: u32, v: Cell) -> f32 { return total(lane, across(v)); }\n";

/// For f32: the cell type, its initial value, the combination of cells, and the update of y.
fn emit_float_functions(reduction: Reduction, config: RowConfig) -> String {
    let [start, further, extreme] = match reduction {
        Reduction::Sum => ["0.0", "return a + v;", ""],
        Reduction::Max => [
            "bitcast<f32>(0xff800000u + p.groups - p.groups)",
            "return select(max(a, v), Cell(nan()), nans(a) | nans(v));",
            "max",
        ],
        Reduction::Min => [
            "bitcast<f32>(0x7f800000u + p.groups - p.groups)",
            "return select(min(a, v), Cell(nan()), nans(a) | nans(v));",
            "min",
        ],
    };
    let combine = match extreme {
        "" => "return a + b;".to_string(),
        _ => format!("if is_nan(a) || is_nan(b) {{ return nan(); }} return {extreme}(a, b);"),
    };
    // The extreme within a cell, ignoring NaN.
    let own = match (extreme, config.vectors) {
        ("", _) => String::new(),
        (_, false) => "fn extreme(v: Cell) -> f32 { return select(v, start(), is_nan(v)); }\n".into(),
        (f, true) => format!(
            "fn extreme(v: Cell) -> f32 {{
  let w = select(v, Cell(start()), nans(v));
  return {f}({f}(w.x, w.y), {f}(w.z, w.w));
}}
"
        ),
    };
    format!(
        "{}
fn start() -> f32 {{ return {start}; }}
fn further(a: Cell, v: Cell) -> Cell {{ {further} }}
fn combine(a: f32, b: f32) -> f32 {{ {combine} }}
{own}fn settle(at: u32, v: f32) {{
  if p.first == 1u {{ store_y(at, p.scale * v); }} else {{ store_y(at, combine(load_y(at), p.scale * v)); }}
}}
",
        config.emit_cells(REDUCE.bindings, &["x"])
    )
}

fn emit_integer_functions(reduction: Reduction, columns: bool) -> String {
    let (combine, start) = match reduction {
        Reduction::Sum => ("a + b", "0"),
        Reduction::Max => ("max(a, b)", "-2147483647 - 1"),
        Reduction::Min => ("min(a, b)", "2147483647"),
    };
    format!(
        "fn combine(a: i32, b: i32) -> i32 {{ return {combine}; }}
fn further(a: i32, b: i32) -> i32 {{ return combine(a, b); }}
fn start() -> i32 {{ return {start}; }}
fn settle(at: u32, v: i32) {{
  if p.first == 1u {{ store_y(at, v); }} else {{ store_y(at, combine(load_y(at), v)); }}
}}
{}",
        if columns { include_str!("columns.wgsl") } else { include_str!("whole_rows.wgsl") }
    )
}
