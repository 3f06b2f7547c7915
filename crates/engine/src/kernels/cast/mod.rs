//! Conversion between storage types.
//!
//! To f16 and bf16: round to nearest, ties to even; infinity beyond f16's range. Floats to i32: truncated, saturated to
//! the range; NaN gives 0 (as Rust's `as`). One invocation converts a pair of elements, since half types are stored in
//! pairs. Cost: one pass.

mod native;

use std::rc::Rc;

use lowrank_cpu::quant::BlockType;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::launch::{Bind, for_each_window};
use crate::scalars;

const THREADS: u32 = 128;
const DTYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::I32];

scalars! {
    struct Scalars { size: u32 }
}

/// `params` = [1 if x is i32, 1 if y is i32, 1 if y is stored in pairs].
static CAST: Kernel = Kernel {
    name: "cast",
    bindings: &[("x", Access::Read), ("y", Access::Write)],
    scalars: Scalars::members,
    implementations: Implementations::Both { wgsl: emit_wgsl, native: native::cast },
    variants: || {
        DTYPES
            .into_iter()
            .flat_map(|x| DTYPES.map(|y| (x, y)))
            .filter(|(x, y)| x != y)
            .chain(BlockType::EVERY.map(|kind| (DType::Block(kind), DType::F32)))
            .map(|(x, y)| Variant { params: make_params(x, y), dtypes: vec![x, y], threads: THREADS })
            .collect()
    },
};

pub const KERNELS: &[&Kernel] = &[&CAST];

fn make_params(x: DType, y: DType) -> Params {
    [(x == DType::I32) as u32, (y == DType::I32) as u32, (y.bytes() == 2) as u32, 0]
}

fn emit_wgsl(params: Params) -> String {
    let convert = match (params[0], params[1]) {
        (1, 0) => "fn convert(v: i32) -> f32 { return f32(v); }",
        (_, 1) => {
            "fn convert(v: f32) -> i32 {
  if is_nan(v) { return 0; }
  if v >= 2147483648.0 { return 2147483647; }
  if v <= -2147483648.0 { return i32(-2147483647) - 1; }
  return i32(v);
}"
        }
        _ => "fn convert(v: f32) -> f32 { return v; }",
    };
    let store = if params[2] == 1 {
        "  var second = 0.0;
  if i + 1u < p.size { second = convert(load_x(i + 1u)); }
  store2_y(i >> 1u, convert(load_x(i)), second);"
    } else {
        "  store_y(i, convert(load_x(i)));
  if i + 1u < p.size { store_y(i + 1u, convert(load_x(i + 1u))); }"
    };
    format!(
        "{convert}
fn kernel(group: u32, lane: u32) {{
  let i = 2u * (group * THREADS + lane);
  if i >= p.size {{ return; }}
{store}
}}
"
    )
}

/// Appends y = x in y's dtype, which differs from x's; blocks become f32.
pub fn cast(cx: &Rc<Context>, x: &Value, y: &Value) -> Result<()> {
    debug_assert_ne!(x.dtype, y.dtype);
    let binds = [Bind::new(x, &[1], 1), Bind::new(y, &[1], 1)];
    for_each_window(cx, "cast", &[x.size()], &[2], &binds, |window| {
        let n = window.count[0] as u32;
        cx.launch(Launch {
            kernel: &CAST,
            params: make_params(x.dtype, y.dtype),
            bindings: window.ranges,
            scalars: Scalars { size: n }.words(),
            groups: n.div_ceil(2 * THREADS),
            threads: THREADS,
            work: n as u64,
        });
    })
}
