//! A product with K split: each part is summed separately into scratch, as a batch; then the parts are added in
//! ascending order, C = α · Σ parts + bias, or C += ….
//!
//! Cost: the parts are written and read once, a fraction of the factors' bytes where C is small.

use std::rc::Rc;

use super::bindings::{BIAS, Binding, C};
use super::{Gemm, Matrix, append, choose, plan};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

pub const THREADS: u32 = 64;

scalars! {
    struct Scalars {
        rows: usize,
        columns: usize,
        parts: usize,
        /// The strides from part to part and from row to row of a part, in elements.
        part: usize,
        part_row: usize,
        c_row: usize,
        alpha: f32,
        accumulate: bool,
    }
}

static ADD: Kernel =
    define_kernel("gemm_parts", &[("parts", Access::Read), C], |_| emit_body(false), || list_variants(2));
static ADD_BIAS: Kernel = define_kernel(
    "gemm_parts_bias",
    &[("parts", Access::Read), BIAS, C],
    |_| emit_body(true),
    || list_variants(3),
);

const fn define_kernel(
    name: &'static str,
    bindings: &'static [Binding],
    wgsl: fn(crate::kernel::Params) -> String,
    variants: fn() -> Vec<Variant>,
) -> Kernel {
    Kernel {
        name,
        bindings,
        scalars: Scalars::members,
        implementations: Implementations::Gpu(wgsl),
        variants,
    }
}

pub const KERNELS: [&Kernel; 2] = [&ADD, &ADD_BIAS];

fn list_variants(bindings: usize) -> Vec<Variant> {
    vec![Variant { params: [0; 4], dtypes: vec![DType::F32; bindings], threads: THREADS }]
}

fn emit_body(bias: bool) -> String {
    let add_bias = if bias { "v += load_bias(column);" } else { "" };
    format!(
        "fn kernel(group: u32, lane: u32) {{
  let i = group * THREADS + lane;
  if i >= p.rows * p.columns {{ return; }}
  let row = i / p.columns;
  let column = i % p.columns;
  var at = row * p.part_row + column;
  var sum = 0.0;
  for (var s = 0u; s < p.parts; s++) {{
    sum += load_parts(at);
    at += p.part;
  }}
  let to = row * p.c_row + column;
  var v = p.alpha * sum;
  {add_bias}
  if p.accumulate == 1u {{ v += load_c(to); }}
  store_c(to, v);
}}
"
    )
}

/// Appends the product in parts of `part` terms.
pub fn gemm(
    cx: &Rc<Context>,
    part: usize,
    g: Gemm,
    a: Matrix,
    b: Matrix,
    bias: Option<&Value>,
    c: Matrix,
) -> Result<()> {
    let (m, n) = (g.m, g.n);
    let (whole, rest) = (g.k / part, g.k % part);
    let count = whole + (rest > 0) as usize;
    let scratch = cx.empty([count, m, n], DType::F32)?;
    let append_sums = |first: usize, batch: usize, k: usize| {
        let skip_parts = |factor: Matrix, step: usize| {
            factor.value.sub_range(first * part * step, [factor.value.size() - first * part * step])
        };
        let (a_value, b_value) = (skip_parts(a, a.column), skip_parts(b, b.row));
        let to = scratch.sub_range(first * m * n, [batch, m, n]);
        let g = Gemm { precision: g.precision, ..Gemm::new(m, n, k).batch(batch) };
        let a = Matrix { value: &a_value, ..a }.with_batch_stride(part * a.column);
        let b = Matrix { value: &b_value, ..b }.with_batch_stride(part * b.row);
        let sums = Matrix::new(&to, n).with_batch_stride(m * n);
        let config = choose(cx, &g, &a, &b, &sums, [false; 2]);
        append(cx, config, g, a, b, None, None, sums)
    };
    append_sums(0, whole, part)?;
    if rest > 0 {
        append_sums(whole, 1, rest)?;
    }
    append_part_sum(cx, &g, count, &scratch, bias, c)
}

fn append_part_sum(
    cx: &Rc<Context>,
    g: &Gemm,
    parts: usize,
    scratch: &Value,
    bias: Option<&Value>,
    c: Matrix,
) -> Result<()> {
    let (part, part_row) = (g.m * g.n, g.n);
    let mut binds = vec![Bind::new(scratch, &[part_row, 1, part], 1)];
    binds.extend(bias.map(|bias| Bind::new(bias, &[0, 1, 0], 1)));
    binds.push(Bind::new(c.value, &[c.row, 1, 0], 1));
    for_each_window(cx, "matmul", &[g.m, g.n, parts], &[1; 3], &binds, |mut w| {
        let [rows, columns, parts] = [0, 1, 2].map(|d| w.count[d]);
        // The bias is added once, with the first parts.
        let first = w.start[2] == 0;
        let with_bias = bias.is_some() && first;
        if bias.is_some() && !first {
            w.ranges.remove(1);
        }
        let accumulate = g.accumulate || !first;
        cx.launch(Launch {
            kernel: if with_bias { &ADD_BIAS } else { &ADD },
            params: [0; 4],
            bindings: w.ranges,
            scalars: Scalars {
                rows,
                columns,
                parts,
                part,
                part_row,
                c_row: c.row,
                alpha: g.alpha,
                accumulate,
            }
            .words(),
            groups: (rows * columns).div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: (rows * columns * parts) as u64,
        });
    })
}

/// Terms per part, if the product is split.
pub fn find_part(g: &Gemm, a: &Matrix, b: &Matrix) -> Option<usize> {
    let part = plan::choose_part(g, a, b);
    (part < g.k).then_some(part)
}
