//! Copies of strided boxes, which implement permutation, slicing and concatenation.
//!
//! Maths: y[y₀ + Σ i_d·y_d] = x[x₀ + Σ i_d·x_d] over at most six dimensions after merging. Copies bits without
//! interpreting them. Cost: one pass, bound by memory.
//!
//! Variants: one invocation per element in the order of the box (used if y and x share their innermost dimension); 16 ×
//! 16 tiles through workgroup memory if x is contiguous along another dimension than y, so that reads and writes are
//! whole lines. The CPU implementation has the same two, as `memcpy` of rows and as tiles that fit L1.

mod native;
#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::kernels::cast::cast;
use crate::launch::{Bind, Indices, for_each_window};
use crate::profile::Kind;
use crate::scalars;

/// The most dimensions of a kernel.
const DIMS: usize = 6;
const THREADS: u32 = 256;
/// The side of a tile in the transposing variant.
const TILE: usize = 16;

scalars! {
    /// The sizes of the box, and the strides of each index in x and y.
    pub(super) struct StridedBox { size: usize, n: [usize; DIMS], x: [usize; DIMS], y: [usize; DIMS] }
}

/// `params` = [dimensions, 1 for the transposing variant].
static COPY: Kernel = Kernel {
    name: "copy",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite)],
    scalars: StridedBox::members,
    implementations: Implementations::Both { wgsl: emit_wgsl, native: native::copy },
    variants: || {
        (1..=DIMS as u32)
            .flat_map(|dims| [(dims, 0), (dims, 1)])
            .filter(|(dims, tiled)| *tiled == 0 || *dims >= 2)
            .map(|(dims, tiled)| Variant {
                params: [dims, tiled, 0, 0],
                dtypes: vec![DType::I32; 2],
                threads: THREADS,
            })
            .collect()
    },
};

pub const KERNELS: &[&Kernel] = &[&COPY];

/// One side of a copy: the start of the box in a value, and the stride of each index.
pub struct Side<'a> {
    pub value: &'a Value,
    pub start: usize,
    pub strides: Indices,
}

impl<'a> Side<'a> {
    /// The whole of `value`, row-major.
    pub fn whole(value: &'a Value) -> Side<'a> {
        Side { value, start: 0, strides: value.shape.strides() }
    }
}

fn emit_wgsl(params: Params) -> String {
    let dims = params[0];
    let emit_step = |d: u32| {
        format!("  {{ let k = rest % p.n{d}; rest /= p.n{d}; x += k * p.x{d}; y += k * p.y{d}; }}\n")
    };
    if params[1] == 0 {
        let emitted_steps: String = (0..dims).rev().map(emit_step).collect();
        return format!(
            "fn kernel(group: u32, lane: u32) {{
  let i = group * THREADS + lane;
  if i >= p.size {{ return; }}
  var rest = i;
  var x = 0u;
  var y = 0u;
{emitted_steps}  store_y(y, load_x(x));
}}
"
        );
    }
    // The plan has put y's contiguous dimension last and x's before it.
    let (a, b) = (dims - 2, dims - 1);
    let emitted_steps: String = (0..a).rev().map(emit_step).collect();
    format!(
        "var<workgroup> tile: array<i32, {cells}>;
fn kernel(group: u32, lane: u32) {{
  let across = (p.n{b} + {TILE}u - 1u) / {TILE}u;
  let down = (p.n{a} + {TILE}u - 1u) / {TILE}u;
  var rest = group;
  let b0 = (rest % across) * {TILE}u;
  rest /= across;
  let a0 = (rest % down) * {TILE}u;
  rest /= down;
  var x = 0u;
  var y = 0u;
{emitted_steps}  let slow = lane / {TILE}u;
  let fast = lane % {TILE}u;
  if a0 + fast < p.n{a} && b0 + slow < p.n{b} {{
    tile[slow * {row}u + fast] = load_x(x + (a0 + fast) * p.x{a} + (b0 + slow) * p.x{b});
  }}
  workgroupBarrier();
  if a0 + slow < p.n{a} && b0 + fast < p.n{b} {{
    store_y(y + (a0 + slow) * p.y{a} + (b0 + fast) * p.y{b}, tile[fast * {row}u + slow]);
  }}
}}
",
        cells = TILE * (TILE + 1),
        row = TILE + 1,
    )
}

/// Appends the copy of a box of `dims` from `x` to `y`, of equal dtype. Two-byte types only on the cpu: see
/// `with_f32_copies`. If the host knows x and the box covers y, it knows y, too.
///
/// # Errors
/// `ERR_SHAPE_MISMATCH` if more than six dimensions remain after merging.
pub fn copy(cx: &Rc<Context>, name: &str, dims: &[usize], x: &Side, y: &Side) -> Result<()> {
    debug_assert_eq!(x.value.dtype, y.value.dtype);
    if dims.contains(&0) {
        return Ok(());
    }
    copy_host(dims, x, y);
    let mut merged = collapse(dims, &x.strides, &y.strides);
    if merged.len() > DIMS {
        fail!(ShapeMismatch, "{name}: more than {DIMS} dimensions that do not merge");
    }
    // If x is contiguous along another dimension than y, move that one next to y's.
    let last = merged.len() - 1;
    let other = (0..last).rev().find(|d| merged[*d].x == 1);
    let tiled = merged[last].y == 1 && merged[last].x != 1 && other.is_some();
    if let (true, Some(other)) = (tiled, other) {
        let dimension = merged.remove(other);
        merged.insert(last - 1, dimension);
    }
    let space: Indices = merged.iter().map(|w| w.n).collect();
    let x_strides: Indices = merged.iter().map(|w| w.x).collect();
    let y_strides: Indices = merged.iter().map(|w| w.y).collect();
    let x = x.value.sub_range(x.start, [x.value.size() - x.start]);
    let y = y.value.sub_range(y.start, [y.value.size() - y.start]);
    let binds = [Bind::new(&x, &x_strides, 1), Bind::new(&y, &y_strides, 1)];
    for_each_window(cx, name, &space, &[], &binds, |mut window| {
        let size: usize = window.count.iter().product();
        let padded = |values: &Indices, fill| std::array::from_fn(|d| values.get(d).copied().unwrap_or(fill));
        let (n, x, y) = (padded(&window.count, 1), padded(&x_strides, 0), padded(&y_strides, 0));
        let groups = if tiled {
            let [outer @ .., a, b] = &window.count[..] else { unreachable!("two dimensions at least") };
            outer.iter().product::<usize>() * a.div_ceil(TILE) * b.div_ceil(TILE)
        } else {
            size.div_ceil(THREADS as usize)
        };
        for range in &mut window.ranges {
            if range.dtype == DType::F32 {
                range.dtype = DType::I32;
            }
        }
        cx.launch(Launch {
            kernel: &COPY,
            params: [space.len() as u32, tiled as u32, 0, 0],
            bindings: window.ranges,
            scalars: StridedBox { size, n, x, y }.words(),
            groups: groups as u32,
            threads: THREADS,
            work: size as u64 * 4,
        });
    })
}

fn copy_host(dims: &[usize], x: &Side, y: &Side) {
    let whole = y.start == 0 && y.strides == y.value.shape.strides() && dims == &y.value.shape[..];
    let Some(host) = x.value.host().filter(|_| whole) else { return };
    let copied = (0..y.value.size()).map(|i| {
        let (mut rest, mut at) = (i, x.start);
        for (n, stride) in dims.iter().zip(&x.strides).rev() {
            at += rest % n * stride;
            rest /= n;
        }
        host[at]
    });
    *y.value.storage.host.borrow_mut() = Some(copied.collect());
}

/// Calls `body` with f32 copies of the values if the device stores half types only in pairs, otherwise with the values.
pub fn with_f32_copies(
    cx: &Rc<Context>,
    inputs: &[&Value],
    y: &Value,
    body: impl FnOnce(&[&Value], &Value) -> Result<()>,
) -> Result<()> {
    if y.dtype.bytes() == 4 || cx.profile.kind == Kind::Cpu {
        return body(inputs, y);
    }
    let wide = |v: &Value| cx.empty(v.shape.clone(), DType::F32);
    let mut wide_inputs = Vec::with_capacity(inputs.len());
    for x in inputs {
        let wide = wide(x)?;
        cast(cx, x, &wide)?;
        wide_inputs.push(wide);
    }
    let wide_y = wide(y)?;
    body(&wide_inputs.iter().collect::<Vec<_>>(), &wide_y)?;
    cast(cx, &wide_y, y)
}

/// One dimension of the box.
struct BoxDimension {
    n: usize,
    x: usize,
    y: usize,
}

/// Drops dimensions of size 1 and merges neighbours that are contiguous on both sides.
fn collapse(dims: &[usize], x: &[usize], y: &[usize]) -> SmallVec<[BoxDimension; DIMS]> {
    let mut merged: SmallVec<[BoxDimension; DIMS]> = SmallVec::new();
    for ((&n, &x), &y) in dims.iter().zip(x).zip(y).filter(|((n, _), _)| **n != 1) {
        match merged.last_mut() {
            Some(outer) if outer.x == n * x && outer.y == n * y => {
                *outer = BoxDimension { n: outer.n * n, x, y }
            }
            _ => merged.push(BoxDimension { n, x, y }),
        }
    }
    if merged.is_empty() {
        merged.push(BoxDimension { n: 1, x: 1, y: 1 });
    }
    merged
}
