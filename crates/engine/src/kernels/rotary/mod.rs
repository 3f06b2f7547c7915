//! Rotary position embedding, forward and backward, in one pass.
//!
//! Maths: with h half of the rotated dimensions and c, s rows of the tables at the position,
//! y[i] = x[i]·c[i] − x[i+h]·s[i], y[i+h] = x[i+h]·c[i+h] + x[i]·s[i+h]; the inverse is the
//! transpose. Dimensions past 2h are copied. Layout: x, y [B, T, H, D]; tables [P, h], or [P, 2h].
//! Cost: one pass, bound by memory. One invocation makes a pair (i, i + h), or copies one element.
//! Source: Su et al., RoFormer, arXiv 2104.09864, in the half-split layout of GPT-NeoX.

mod cpu;

use std::fmt::Write;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Access, Kernel, Params, Scalar, Variant};
use crate::launch::{Bind, windows};
use crate::recording::Launch;
use crate::tensor::{Context, Value};

const THREADS: u32 = 128;
const POSITIONS: u32 = 1;
const INVERSE: u32 = 2;

static ROTARY: Kernel = Kernel {
    name: "rotary",
    bindings: &[
        ("x", Access::Read),
        ("cos", Access::Read),
        ("sin", Access::Read),
        ("position", Access::Read),
        ("y", Access::Write),
    ],
    scalars: {
        use Scalar::U32 as S;
        &[
            S("batch"),
            S("time"),
            S("heads"),
            S("dim"),
            S("x_batch"),
            S("x_row"),
            S("half"),
            S("width"),
            S("rows"),
            S("position_batch"),
        ]
    },
    wgsl,
    cpu: cpu::rotary,
    variants: || {
        use DType::{F32, I32};
        let dtypes = vec![F32, F32, F32, I32, F32];
        (0..4).map(|p| Variant { params: [p, 0, 0, 0], dtypes: dtypes.clone(), threads: THREADS }).collect()
    },
};

pub const KERNELS: &[&Kernel] = &[&ROTARY];

fn wgsl(params: Params) -> String {
    let mut out = String::new();
    writeln!(out, "const POSITIONS = {};", params[0] & POSITIONS != 0).unwrap();
    writeln!(out, "const INVERSE = {};", params[0] & INVERSE != 0).unwrap();
    out + include_str!("rotary.wgsl")
}

/// What is rotated by what.
pub struct Rotate<'a> {
    /// [B, T, H, D]
    pub x: &'a Value,
    /// [P, h] or [P, 2h]
    pub cos: &'a Value,
    pub sin: &'a Value,
    /// i32 [B, T]; row t stands at `offset` + t without. A position outside the tables gives NaN.
    pub positions: Option<&'a Value>,
    pub offset: usize,
    /// Half of the dimensions that are rotated.
    pub half: usize,
    pub inverse: bool,
}

/// Appends y = x rotated.
pub fn rotary(cx: &Rc<Context>, r: &Rotate, y: &Value) -> Result<()> {
    let [batch, time, heads, dim] = [0, 1, 2, 3].map(|d| r.x.shape[d]);
    if r.x.size() == 0 {
        return Ok(());
    }
    let width = r.cos.shape[1];
    let strides = [time * heads * dim, heads * dim, dim];
    let nothing = Value { dtype: DType::I32, ..r.x.sub_range(0, [1]) };
    // By offset the table's rows go along with x's; by position any row may be read.
    let rows = |table: &Value| table.sub_range(r.offset * width, [time, width]);
    let (cos, sin) = match r.positions {
        Some(_) => (r.cos.clone(), r.sin.clone()),
        None => (rows(r.cos), rows(r.sin)),
    };
    let table = |table| match r.positions {
        Some(_) => Bind::whole(table),
        None => Bind::new(table, &[0, width, 0], width),
    };
    let binds = [
        Bind::new(r.x, &strides, dim),
        table(&cos),
        table(&sin),
        r.positions.map_or_else(|| Bind::whole(&nothing), |p| Bind::new(p, &[time, 1, 0], 1)),
        Bind::new(y, &strides, dim),
    ];
    let flags = if r.positions.is_some() { POSITIONS } else { 0 } | if r.inverse { INVERSE } else { 0 };
    windows(cx, ROTARY.name, &[batch, time, heads], &[], &binds, |w| {
        let [b, t, h] = [w.count[0], w.count[1], w.count[2]];
        let units = b * t * h * (dim - r.half);
        cx.launch(Launch {
            kernel: &ROTARY,
            params: [flags, 0, 0, 0],
            bindings: w.ranges,
            scalars: [b, t, h, dim, strides[0], strides[1], r.half, width, r.cos.shape[0], time]
                .iter()
                .map(|n| *n as u32)
                .collect::<SmallVec<_>>(),
            groups: units.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: 6 * units as u64,
        });
    })
}
