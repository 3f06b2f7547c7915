//! Rotary position embedding, forward and backward, in one pass.
//!
//! Maths: with h half of the rotated dimensions and c, s rows of the tables at the position, y[i] = x[i]·c[i] −
//! x[i+h]·s[i], y[i+h] = x[i+h]·c[i+h] + x[i]·s[i+h]; the inverse is the transpose. Dimensions past 2h are copied.
//! Layout: x, y [B, T, H, D]; tables [P, h] or [P, 2h]. Two tensors that differ only in their heads, such as q and k,
//! share one launch. One invocation computes a pair (i, i + h) or copies one element. Cost: one pass, bound by memory.
//! Source: Su et al., RoFormer, arXiv 2104.09864, in the half-split layout of GPT-NeoX.

mod native;

use std::fmt::Write;
use std::rc::Rc;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::scalars::Words;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant, concat};
use crate::launch::{Bind, Window, for_each_window};
use crate::scalars;

const THREADS: u32 = 128;
const POSITIONS: u32 = 1;
const INVERSE: u32 = 2;

scalars! {
    pub(super) struct Rotary {
        /// The sizes of the window.
        batch: usize,
        time: usize,
        heads: usize,
        dim: usize,
        /// The strides of x's batch and position.
        x_batch: usize,
        x_row: usize,
        half: usize,
        /// The sizes of the tables.
        width: usize,
        rows: usize,
        position_batch: usize,
    }
}

scalars! {
    pub(super) struct RotaryTwo { one: Rotary, heads2: usize, x2_batch: usize, x2_row: usize }
}

const ONE: Kernel = Kernel {
    name: "rotary",
    bindings: &[
        ("x", Access::Read),
        ("cos", Access::Read),
        ("sin", Access::Read),
        ("position", Access::Read),
        ("y", Access::Write),
    ],
    scalars: Rotary::members,
    implementations: Implementations::Both {
        wgsl: |params| emit_wgsl(params, ONE_WGSL),
        native: native::rotary,
    },
    variants: || list_variants(&[DType::F32, DType::F32, DType::F32, DType::I32, DType::F32]),
};
static ROTARY: Kernel = ONE;
/// The kernel for two tensors.
static ROTARY_TWO: Kernel = {
    Kernel {
        name: "rotary of two",
        bindings: &concat::<_, 7>(ONE.bindings, &[("x2", Access::Read), ("y2", Access::Write)]),
        scalars: RotaryTwo::members,
        implementations: Implementations::Both {
            wgsl: |params| emit_wgsl(params, TWO_WGSL),
            native: native::rotary_two,
        },
        variants: || {
            use DType::{F32, I32};
            list_variants(&[F32, F32, F32, I32, F32, F32, F32])
        },
    }
};

pub const KERNELS: &[&Kernel] = &[&ROTARY, &ROTARY_TWO];

fn list_variants(dtypes: &[DType]) -> Vec<Variant> {
    let make_variant = |p| Variant { params: [p, 0, 0, 0], dtypes: dtypes.to_vec(), threads: THREADS };
    (0..4).map(make_variant).collect()
}

const ONE_WGSL: &str = "
fn all_heads() -> u32 { return p.heads; }
fn place(b: u32, t: u32, h: u32) -> u32 { return b * p.x_batch + t * p.x_row + h * p.dim; }
fn load(h: u32, at: u32) -> f32 { return load_x(at); }
fn store(h: u32, at: u32, v: f32) { store_y(at, v); }
";
/// The second tensor's heads follow the first tensor's heads.
const TWO_WGSL: &str = "
fn all_heads() -> u32 { return p.heads + p.heads2; }
fn place(b: u32, t: u32, h: u32) -> u32 {
  if h < p.heads { return b * p.x_batch + t * p.x_row + h * p.dim; }
  return b * p.x2_batch + t * p.x2_row + (h - p.heads) * p.dim;
}
fn load(h: u32, at: u32) -> f32 {
  if h < p.heads { return load_x(at); }
  return load_x2(at);
}
fn store(h: u32, at: u32, v: f32) {
  if h < p.heads { store_y(at, v); } else { store_y2(at, v); }
}
";

fn emit_wgsl(params: Params, places: &str) -> String {
    let mut out = String::from(places);
    writeln!(out, "const POSITIONS = {};", params[0] & POSITIONS != 0).unwrap();
    writeln!(out, "const INVERSE = {};", params[0] & INVERSE != 0).unwrap();
    out + include_str!("rotary.wgsl")
}

/// The parameters of the rotation.
pub struct Rotation<'a> {
    /// [P, h] or [P, 2h]
    pub cos: &'a Value,
    pub sin: &'a Value,
    /// i32 [B, T]; without it row t has position `offset` + t. A position outside the tables gives NaN.
    pub positions: Option<&'a Value>,
    pub offset: usize,
    /// Half of the number of rotated dimensions.
    pub half: usize,
    pub inverse: bool,
}

/// Appends y = x rotated. x and y are [B, T, H, D].
pub fn rotary(cx: &Rc<Context>, r: &Rotation, x: &Value, y: &Value) -> Result<()> {
    let [batch, time, heads, dim] = read_sizes(x);
    if x.size() == 0 {
        return Ok(());
    }
    let strides = [time * heads * dim, heads * dim, dim];
    let placeholder = make_placeholder(x);
    let tables = r.slice_tables(time);
    let binds = [
        Bind::new(x, &strides, dim),
        r.bind_table(&tables[0]),
        r.bind_table(&tables[1]),
        r.bind_positions(&placeholder, time),
        Bind::new(y, &strides, dim),
    ];
    for_each_window(cx, ROTARY.name, &[batch, time, heads], &[], &binds, |w| {
        let [b, t, h] = [0, 1, 2].map(|d| w.count[d]);
        let words = r.scalars([b, t, h, dim], time, heads).words();
        r.launch(cx, &ROTARY, w, words, b * t * h, dim);
    })
}

/// Appends y = x rotated for two tensors with equal B, T and D.
///
/// # Errors
/// `ERR_OUT_OF_MEMORY` if a position's heads exceed the binding limit.
pub fn rotary_two(cx: &Rc<Context>, r: &Rotation, x: [&Value; 2], y: [&Value; 2]) -> Result<()> {
    let [batch, time, heads, dim] = read_sizes(x[0]);
    let heads2 = x[1].shape[2];
    if x[0].size() == 0 || heads2 == 0 {
        return Ok(());
    }
    let placeholder = make_placeholder(x[0]);
    let tables = r.slice_tables(time);
    let by_position = |v, heads| Bind::new(v, &[time * heads * dim, heads * dim], heads * dim);
    let binds = [
        by_position(x[0], heads),
        r.bind_table(&tables[0]),
        r.bind_table(&tables[1]),
        r.bind_positions(&placeholder, time),
        by_position(y[0], heads),
        by_position(x[1], heads2),
        by_position(y[1], heads2),
    ];
    for_each_window(cx, ROTARY_TWO.name, &[batch, time], &[], &binds, |w| {
        let (b, t) = (w.count[0], w.count[1]);
        let one = r.scalars([b, t, heads, dim], time, heads);
        let words = RotaryTwo { one, heads2, x2_batch: time * heads2 * dim, x2_row: heads2 * dim }.words();
        r.launch(cx, &ROTARY_TWO, w, words, b * t * (heads + heads2), dim);
    })
}

fn read_sizes(x: &Value) -> [usize; 4] {
    [0, 1, 2, 3].map(|d| x.shape[d])
}

/// The value that is bound if there are no positions.
fn make_placeholder(x: &Value) -> Value {
    Value { dtype: DType::I32, ..x.sub_range(0, [1]) }
}

impl Rotation<'_> {
    /// cos and sin. With an offset only the rows in use; with positions the whole tables.
    fn slice_tables(&self, time: usize) -> [Value; 2] {
        let width = self.cos.shape[1];
        [self.cos, self.sin].map(|table| match self.positions {
            Some(_) => table.clone(),
            None => table.sub_range(self.offset * width, [time, width]),
        })
    }

    fn bind_table<'a>(&self, table: &'a Value) -> Bind<'a> {
        let width = table.shape[1];
        match self.positions {
            Some(_) => Bind::whole(table),
            None => Bind::new(table, &[0, width], width),
        }
    }

    fn bind_positions<'a>(&'a self, placeholder: &'a Value, time: usize) -> Bind<'a> {
        self.positions.map_or_else(|| Bind::whole(placeholder), |p| Bind::new(p, &[time, 1], 1))
    }

    /// The scalars of a window of [B, T, H, D] in a tensor of `time` positions and `heads` heads.
    fn scalars(&self, [b, t, h, dim]: [usize; 4], time: usize, heads: usize) -> Rotary {
        let (width, rows) = (self.cos.shape[1], self.cos.shape[0]);
        Rotary {
            batch: b,
            time: t,
            heads: h,
            dim,
            x_batch: time * heads * dim,
            x_row: heads * dim,
            half: self.half,
            width,
            rows,
            position_batch: time,
        }
    }

    fn launch(
        &self,
        cx: &Context,
        kernel: &'static Kernel,
        w: Window,
        scalars: Words,
        heads: usize,
        dim: usize,
    ) {
        let positions = if self.positions.is_some() { POSITIONS } else { 0 };
        let units = heads * (dim - self.half);
        cx.launch(Launch {
            kernel,
            params: [positions | if self.inverse { INVERSE } else { 0 }, 0, 0, 0],
            bindings: w.ranges,
            scalars,
            groups: units.div_ceil(THREADS as usize) as u32,
            threads: THREADS,
            work: 6 * units as u64,
        });
    }
}
