//! Powers of two that scale the largest magnitude of each line, A's rows and B's columns, into [2¹⁴, 2¹⁵).
//!
//! A workgroup handles 4 lines by 64 terms if a line's terms are contiguous, and 32 lines by 8 terms if lines are, so
//! that reads are coalesced. Magnitudes are compared as integers, which order finite numbers correctly; the maximum
//! does not depend on the order.

use std::rc::Rc;

use super::super::{Gemm, Matrix};
use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Range, Variant};
use crate::scalars;

/// The storage types of B.
pub const STORED: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const THREADS: u32 = 256;
/// Lines per workgroup, by whether lines are contiguous.
const LINES: [u32; 2] = [4, 32];

scalars! {
    struct Scalars {
        /// Lines of all matrices together.
        count: usize,
        lines: usize,
        terms: usize,
        batch_step: usize,
        line_step: usize,
        term_step: usize,
    }
}

pub static SCALES: Kernel = Kernel {
    name: "gemm_scales",
    bindings: &[("x", Access::Read), ("scale", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Gpu(|[by_lines, ..]| {
        emit_body(LINES[by_lines as usize & 1], by_lines == 1)
    }),
    variants: list_variants,
};

fn list_variants() -> Vec<Variant> {
    let make_variants = |x: DType| {
        [0, 1].map(|by_lines| Variant {
            params: [by_lines, 0, 0, 0],
            dtypes: vec![x, DType::F32],
            threads: THREADS,
        })
    };
    STORED.into_iter().flat_map(make_variants).collect()
}

fn emit_body(lines: u32, by_lines: bool) -> String {
    let terms = THREADS / lines;
    let [own, first] = match by_lines {
        true => [format!("lane % {lines}u"), format!("lane / {lines}u")],
        false => [format!("lane / {terms}u"), format!("lane % {terms}u")],
    };
    format!(
        "var<workgroup> largest: array<u32, {THREADS}>;
fn kernel(group: u32, lane: u32) {{
  let own = {own};
  let first = {first};
  let i = group * {lines}u + own;
  let place = own * {terms}u + first;
  var most = 0u;
  if i < p.count {{
    let at = i / p.lines * p.batch_step + i % p.lines * p.line_step;
    for (var t = first; t < p.terms; t += {terms}u) {{
      let v = load_x(at + t * p.term_step);
      if is_finite(v) {{ most = max(most, bitcast<u32>(v) & 0x7fffffffu); }}
    }}
  }}
  largest[place] = most;
  workgroupBarrier();
  for (var step = {half}u; step > 0u; step /= 2u) {{
    if first < step {{ largest[place] = max(largest[place], largest[place + step]); }}
    workgroupBarrier();
  }}
  if first == 0u && i < p.count {{
    // Both exponents have a bias of 127: 14 minus the largest magnitude's exponent, at most 126.
    store_scale(i, bitcast<f32>(min(268u - (largest[place] >> 23u), 253u) << 23u));
  }}
}}
",
        half = terms / 2,
    )
}

/// The scales of a product's factors; computed for each part of the product.
pub struct Scales {
    a: Value,
    b: Value,
}

impl Scales {
    /// Allocates the scales of a whole product.
    pub fn new(cx: &Rc<Context>, g: &Gemm, b: &Matrix) -> Result<Scales> {
        let matrices = if b.batch == 0 { 1 } else { g.batch };
        Ok(Scales { a: cx.empty([g.batch * g.m], DType::F32)?, b: cx.empty([matrices * g.n], DType::F32)? })
    }

    /// Appends the launches that compute the scales of a part of `sizes` (batch, M, N, K) from factors in `ranges`.
    /// Returns the ranges of the scales.
    pub fn append(
        &self,
        cx: &Rc<Context>,
        [batch, m, n, k]: [usize; 4],
        [a, b]: [&Matrix; 2],
        ranges: [&Range; 2],
    ) -> [Range; 2] {
        let matrices = if b.batch == 0 { 1 } else { batch };
        [
            launch(cx, ranges[0], &self.a, [batch, m, k], [a.batch, a.row, a.column]),
            launch(cx, ranges[1], &self.b, [matrices, n, k], [b.batch, b.column, b.row]),
        ]
    }
}

pub(super) fn launch(
    cx: &Rc<Context>,
    x: &Range,
    scales: &Value,
    [batch, lines, terms]: [usize; 3],
    [batch_step, line_step, term_step]: [usize; 3],
) -> Range {
    let count = batch * lines;
    let by_lines = line_step == 1 && term_step != 1;
    let to = scales.part(0, count);
    cx.launch(Launch {
        kernel: &SCALES,
        params: [by_lines as u32, 0, 0, 0],
        bindings: [*x, to].into_iter().collect(),
        scalars: Scalars { count, lines, terms, batch_step, line_step, term_step }.words(),
        groups: count.div_ceil(LINES[by_lines as usize] as usize) as u32,
        threads: THREADS,
        work: (count * terms) as u64,
    });
    to
}
