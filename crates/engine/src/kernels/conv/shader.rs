//! The correlation in WGSL, in two forms that sum alike where they share a shape's plan.
//!
//! A row is a channel of y. A column is a position of y and a term a tap of a channel of x, or the
//! other way round for the weight's gradient: both are places in x, and their sum is the element.

use crate::kernel::Params;
use crate::kernels::gemm::shader::{SIDE, Stage, both, each};

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Out,
    Weight,
}

/// How the work is laid out over invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each invocation holds `rows` × `columns` in registers; the rows are the workgroup's, the
    /// columns the lanes'. No shared memory: one row has nothing to share.
    Lanes { rows: u32, columns: u32 },
    /// 16 × 16 invocations hold `rows` × `columns` each, over blocks of both factors in shared memory.
    Tile { rows: u32, columns: u32 },
}

impl Form {
    pub const ALL: &[Form] = &[
        Form::Lanes { rows: 1, columns: 1 },
        Form::Tile { rows: 1, columns: 4 },
        Form::Tile { rows: 4, columns: 4 },
        Form::Tile { rows: 8, columns: 8 },
    ];

    pub fn params(self) -> Params {
        match self {
            Form::Lanes { rows, columns } => [0, rows, columns, 0],
            Form::Tile { rows, columns } => [1, rows, columns, 0],
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Form::Lanes { .. } => 32,
            Form::Tile { .. } => SIDE * SIDE,
        }
    }

    /// Rows and columns that a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        let [rows, columns] = match self {
            Form::Lanes { rows, columns } => [rows, columns * self.threads()],
            Form::Tile { rows, columns } => [rows * SIDE, columns * SIDE],
        };
        [rows as usize, columns as usize]
    }
}

/// The body of one form. Sums are unrolled into scalars `c<i>_<j>`.
pub fn body(params: Params, side: Side, bias: bool) -> String {
    let [form, rows, columns, _] = params;
    let (height, width) = match form {
        0 => (rows, columns * 32),
        _ => (rows * SIDE, columns * SIDE),
    };
    let add_bias = if bias { "v += load_bias(g * (p.o_group / p.o_row) + row);" } else { "" };
    let (columns_of, place_of, made) = match side {
        Side::Out => ("p.positions", "b * p.o_batch + g * p.o_group + row * p.o_row + column", "o"),
        Side::Weight => {
            ("p.channels * tap_count()", "(g * (p.o_group / p.o_row) + row) * p.w_row + column", "w")
        }
    };
    let head = format!(
        "fn columns() -> u32 {{ return {columns_of}; }}
fn settle(b: u32, g: u32, row: u32, column: u32, sum: f32) {{
  if row >= p.rows || column >= columns() {{ return; }}
  let at = {place_of};
  var v = sum;
  {add_bias}
  if p.accumulate == 1u {{ v += load_{made}(at); }}
  store_{made}(at, v);
}}
"
    );
    let place = format!(
        "  let row_blocks = (p.rows + {}u) / {height}u;
  let column_blocks = (columns() + {}u) / {width}u;
  let z = group / (row_blocks * column_blocks);
  let block = group % (row_blocks * column_blocks);
  let row = block / column_blocks * {height}u;
  let column = block % column_blocks * {width}u;
  let g = z % p.group_count;
  let b = z / p.group_count;
  let image = p.x_base + b * p.x_batch + g * p.x_group;
",
        height - 1,
        width - 1,
    );
    include_str!("common.wgsl").to_owned()
        + &head
        + &match form {
            0 => lanes(rows, columns, side, &place),
            _ => tile(rows, columns, side, &place),
        }
}

/// Rows and columns past the end read the last one and are not stored.
fn lanes(rows: u32, columns: u32, side: Side, place: &str) -> String {
    let column = |j: u32| format!("min(own + {j}u * THREADS, columns() - 1u)");
    let columns_of = each(columns, |j| match side {
        Side::Out => format!("  let s{j} = position(image, {});\n", column(j)),
        Side::Weight => format!("  let s{j} = tap({});\n", column(j)),
    });
    let row = |i: u32| format!("min(row + {i}u, p.rows - 1u)");
    let rows_of = each(rows, |i| match side {
        Side::Out => format!("  var a{i} = (g * (p.o_group / p.o_row) + {}) * p.w_row;\n", row(i)),
        Side::Weight => format!("  let d{i} = g * p.o_group + {} * p.o_row;\n", row(i)),
    });
    let zeros = both(rows, columns, |i, j| format!("  var c{i}_{j} = 0.0;\n"));
    let takes = each(columns, |j| format!("    let v{j} = take(s{j}, term);\n"));
    let factor = if side == Side::Out { "w" } else { "o" };
    let products = each(rows, |i| {
        format!("    let u{i} = load_{factor}(a{i}); a{i} += 1u;\n")
            + &each(columns, |j| format!("    c{i}_{j} = fma(u{i}, v{j}, c{i}_{j});\n"))
    });
    // The terms are walked in nested loops: a division for each would cost more than the products.
    let walk = match side {
        Side::Out => format!(
            "  let t = vec3<i32>(taps());
  for (var c = 0u; c < p.channels; c++) {{
  for (var d = 0; d < t.x; d++) {{
  for (var h = 0; h < t.y; h++) {{
  for (var w = 0; w < t.z; w++) {{
    let term = Place(c * image_size(), vec3<i32>(d, h, w) * steps());
{takes}{products}  }} }} }} }}
"
        ),
        Side::Weight => {
            let starts = each(rows, |i| format!("    var a{i} = d{i} + n * p.o_batch;\n"));
            format!(
                "  for (var n = 0u; n < p.batch; n++) {{
{starts}    var term = position(image + n * p.x_batch, 0u);
    var q = p.start % p.out_w;
    for (var k = 0u; k < p.positions; k++) {{
{takes}{products}      q += 1u;
      term.at.z += strides().z;
      if q == p.out_w {{ q = 0u; term = position(term.image, k + 1u); }}
    }}
  }}
"
            )
        }
    };
    let stores =
        both(rows, columns, |i, j| format!("  settle(b, g, row + {i}u, own + {j}u * THREADS, c{i}_{j});\n"));
    format!(
        "fn kernel(group: u32, lane: u32) {{
{place}  let own = column + lane;
{columns_of}{rows_of}{zeros}{walk}{stores}}}
"
    )
}

/// The columns that an invocation stages are always the same ones, whose places it keeps.
fn tile(rows: u32, columns: u32, side: Side, place: &str) -> String {
    let stage = Stage::new(rows, columns);
    let Stage { left, right, depth } = stage;
    let (terms, spot, factor, term) = match side {
        Side::Out => (
            "p.channels * tap_count()",
            "position(image, own)",
            "load_w((g * (p.o_group / p.o_row) + row) * p.w_row + k)",
            "tap(k + t)",
        ),
        Side::Weight => (
            "p.batch * p.positions",
            "tap(own)",
            "load_o(k / p.positions * p.o_batch + g * p.o_group + row * p.o_row + k % p.positions)",
            "position(image + (k + t) / p.positions * p.x_batch, (k + t) % p.positions)",
        ),
    };
    let (vectors, lanes) = (right.vectors(), right.lanes());
    let spots = each(lanes, |l| {
        let spot = spot.replace("own", &format!("own + {l}u"));
        format!("  let spot{l} = {spot};\n")
    });
    let place = format!(
        "{place}  let j = lane % {vectors}u;
  let own = column + j * {lanes}u;
{spots}"
    );
    let taken = each(lanes, |l| {
        format!(
            "      var v{l} = 0.0;
      if own + {l}u < columns() && k + t < terms {{ v{l} = take(spot{l}, term); }}
"
        )
    });
    let both = match lanes {
        1 => "v0".to_string(),
        _ => "vec4<f32>(v0, v1, v2, v3)".to_string(),
    };
    let fill = format!(
        "    for (var e = lane; e < {count}u; e += THREADS) {{
      let t = e % {depth}u;
      let i = e / {depth}u;
      left[t * {left_stride}u + i] = {staged};
    }}
    for (var t = lane / {vectors}u; t < {depth}u; t += THREADS / {vectors}u) {{
      let term = {term};
{taken}      right[t * {right_stride}u + j] = {both};
    }}
",
        count = depth * left.vectors(),
        left_stride = left.stride(),
        right_stride = right.stride(),
        staged = left.gathered("i", &|at| format!("staged(g, row + {at}, k + t, terms)")),
    );
    let reader = format!(
        "fn staged(g: u32, row: u32, k: u32, terms: u32) -> f32 {{
  if row >= p.rows || k >= terms {{ return 0.0; }}
  return {factor};
}}
"
    );
    reader + &stage.kernel(&place, terms, &fill, "settle(b, g")
}
