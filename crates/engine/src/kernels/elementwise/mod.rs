//! Elementwise functions of one, two or three operands, with broadcasting.
//!
//! Maths: y[i] = f(a[i·sa], b[i·sb], c[i·sc]) over at most five collapsed dimensions; a stride of 0 broadcasts.
//! Layout: any strides; one invocation per element of y; natively runs along the innermost dimension. If all operands
//! are contiguous in f32, an invocation processes four elements as one vec4 (wide.rs).
//! Cost: one pass, bound by memory. `pow` calls the library for each element (4.2 ns): in f64 lanes it took 1.9 ns with
//! AVX-512, 3.1 with AVX2, and 7.9 without either.
//! Counted from the shader: one f for 8 to 16 bytes, so it is bound by memory if f has fewer than about ten FLOPs; one
//! integer division per collapsed dimension; under 20 registers and no workgroup memory, so occupancy is full.

mod function;
mod gated;
mod native;
#[cfg(test)]
pub(crate) mod tests;
pub(in crate::kernels) mod wide;

pub use function::Function;
pub use gated::silu_mul_backward;

use std::rc::Rc;

use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::fail;
use crate::kernel::scalars::{Field, Member, Words};
use crate::kernel::{Access, Implementations, Kernel, Launch, Params, Variant};
use crate::kernels::cast::cast;
use crate::launch::{Bind, Indices, for_each_window};
use crate::profile::Kind;
use crate::scalars;
use crate::shape::Shape;

/// The most collapsed dimensions of a kernel.
const DIMS: usize = 5;
const THREADS: u32 = 128;

scalars! {
    /// The sizes of the dimensions, and the strides of y.
    pub(super) struct OutputLayout { size: usize, d: [usize; DIMS], y: [usize; DIMS] }
}

/// The strides of each operand, a to c.
#[derive(Clone, Copy)]
pub(super) struct OperandStrides<const N: usize>([[usize; DIMS]; N]);

impl<const N: usize> Field for OperandStrides<N> {
    fn declare(_: &str, members: &mut Vec<Member>) {
        NAMES[..N].iter().for_each(|name| <[usize; DIMS]>::declare(name, members));
    }

    fn write(self, words: &mut Words) {
        self.0.write(words);
    }

    fn read(words: &mut std::slice::Iter<u32>) -> Self {
        OperandStrides(Field::read(words))
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn list_members<const N: usize>() -> Vec<Member> {
    let mut members = OutputLayout::members();
    OperandStrides::<N>::declare("", &mut members);
    members
}

static MAP1: Kernel = Kernel {
    name: "map1",
    bindings: &[("a", Access::Read), ("y", Access::Write)],
    scalars: list_members::<1>,
    implementations: Implementations::Both { wgsl: |params| emit_wgsl(params, 1), native: native::map::<1> },
    variants: || list_variants(1),
};
static MAP2: Kernel = Kernel {
    name: "map2",
    bindings: &[("a", Access::Read), ("b", Access::Read), ("y", Access::Write)],
    scalars: list_members::<2>,
    implementations: Implementations::Both { wgsl: |params| emit_wgsl(params, 2), native: native::map::<2> },
    variants: || list_variants(2),
};
static MAP3: Kernel = Kernel {
    name: "map3",
    bindings: &[("a", Access::Read), ("b", Access::Read), ("c", Access::Read), ("y", Access::Write)],
    scalars: list_members::<3>,
    implementations: Implementations::Both { wgsl: |params| emit_wgsl(params, 3), native: native::map::<3> },
    variants: || list_variants(3),
};
scalars! {
    struct Accumulate { size: u32 }
}

static ACCUMULATE: Kernel = Kernel {
    name: "accumulate",
    bindings: &[("x", Access::Read), ("y", Access::ReadWrite)],
    scalars: Accumulate::members,
    implementations: Implementations::Both {
        wgsl: |params| match params[2] {
            1 => wide::emit_vectors("x", 0, false) + &wide::emit_vectors("y", 1, true) + WIDE_ACCUMULATE_WGSL,
            _ => ACCUMULATE_WGSL.into(),
        },
        native: native::accumulate,
    },
    variants: || {
        let plain = Variant { params: [0; 4], dtypes: vec![DType::F32; 2], threads: THREADS };
        vec![plain, wide::make_variant([0; 4], 2)]
    },
};

pub const KERNELS: &[&Kernel] = &[&MAP1, &MAP2, &MAP3, &ACCUMULATE, &gated::BACKWARD];

const ACCUMULATE_WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i < p.size { store_y(i, load_y(i) + load_x(i)); }
}
";

const WIDE_ACCUMULATE_WGSL: &str = "
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i < p.size / 4u { store4_y(i, load4_y(i) + load4_x(i)); }
}
";

/// `params` = [function, dimensions, 1 for four elements per invocation, 1 to compare integers].
fn emit_wgsl(params: Params, operands: usize) -> String {
    let function = Function::ALL[params[0] as usize];
    let names = &NAMES[..operands];
    let whole = function.relation().filter(|_| params[3] == 1);
    let number = if whole.is_some() { "i32" } else { "f32" };
    let arguments: Vec<String> = names.iter().map(|n| format!("{n}: {number}")).collect();
    let mut out = format!(
        "{}{}fn f({}) -> f32 {{ {} }}\n",
        function::PRELUDE,
        function.prelude(),
        arguments.join(", "),
        whole.map_or(function.wgsl().into(), |relation| format!("return f32(a {relation} b);"))
    );
    if params[2] == 1 {
        return out + &wide::emit_map(names, function.propagates_nan());
    }
    out.push_str("fn kernel(group: u32, lane: u32) {\n  let i = group * THREADS + lane;\n");
    out.push_str("  if i >= p.size { return; }\n  var rest = i;\n");
    let names_with_y = [&["y"], names].concat();
    for n in &names_with_y {
        out.push_str(&format!("  var i{n} = 0u;\n"));
    }
    for d in (0..params[1]).rev() {
        // The outermost index is the remainder.
        out.push_str(&match d {
            0 => "  { let k = rest;".to_string(),
            _ => format!("  {{ let k = rest % p.d{d}; rest = rest / p.d{d};"),
        });
        for n in &names_with_y {
            out.push_str(&format!(" i{n} += k * p.{n}{d};"));
        }
        out.push_str(" }\n");
    }
    let loads: Vec<String> = names.iter().map(|n| format!("{number}(load_{n}(i{n}))")).collect();
    let nan = names.iter().map(|n| format!("is_nan({n})")).collect::<Vec<_>>().join(" || ");
    out.push_str(&names.iter().zip(&loads).map(|(n, l)| format!("  let {n} = {l};\n")).collect::<String>());
    let call = format!("f({})", names.join(", "));
    if function.returns_i32() {
        out.push_str(&format!("  store_y(iy, i32({call}));\n}}\n"));
    } else if function.propagates_nan() {
        out.push_str(&format!("  if {nan} {{ store_y(iy, nan()); }} else {{ store_y(iy, {call}); }}\n}}\n"));
    } else {
        out.push_str(&format!("  store_y(iy, {call});\n}}\n"));
    }
    out
}

fn list_variants(operands: usize) -> Vec<Variant> {
    let mut out = Vec::new();
    for (i, function) in Function::ALL.iter().enumerate().filter(|(_, f)| f.operands() == operands) {
        if function.has_vector_variant() {
            out.push(wide::make_variant([i as u32, 1, 0, 0], operands + 1));
        }
        let max_dims = if function.can_broadcast() { DIMS as u32 } else { 1 };
        for dims in 1..=max_dims {
            let y = if function.returns_i32() { DType::I32 } else { DType::F32 };
            for x in function.inputs() {
                let mut dtypes = vec![*x; operands];
                if function == &Function::SquareBackward {
                    dtypes[0] = DType::F32;
                }
                dtypes.push(y);
                let whole = (*x == DType::I32) as u32;
                let variant = Variant { params: [i as u32, dims, 0, whole], dtypes, threads: THREADS };
                if function.takes_condition() {
                    let mut variant = variant.clone();
                    variant.dtypes[0] = DType::I32;
                    out.push(variant);
                }
                out.push(variant);
            }
        }
    }
    out
}

/// Appends y = f(operands), each broadcast to y's shape. Two i32 operands are compared as integers; otherwise operands
/// are converted to f32.
pub fn map(cx: &Rc<Context>, function: Function, operands: &[&Value], y: &Value) -> Result<()> {
    debug_assert_eq!(function.operands(), operands.len());
    let whole = function.relation().is_some() && operands.iter().all(|v| v.dtype == DType::I32);
    if cx.profile.kind == Kind::Gpu {
        let read = |(k, v): (usize, &&Value)| match v.dtype {
            DType::F32 => true,
            DType::I32 => whole || (k == 0 && function.takes_condition()),
            half => function.inputs().contains(&half) && k + 1 == operands.len(),
        };
        if !operands.iter().enumerate().all(read) {
            return map_converted(cx, function, operands, read, y);
        }
    }
    let shapes: SmallVec<[&Shape; 3]> = operands.iter().map(|v| &v.shape).collect();
    let (space, strides) = collapse(&y.shape, &shapes);
    debug_assert!(space.len() == 1 || function.can_broadcast(), "{}", function.name());
    if space.len() > DIMS {
        fail!(
            ShapeMismatch,
            "{}: broadcasting over more than {DIMS} dimensions that do not merge",
            function.name()
        );
    }
    let mut y_strides = Indices::from_elem(1, space.len());
    for d in (0..space.len() - 1).rev() {
        y_strides[d] = y_strides[d + 1] * space[d + 1];
    }
    let mut binds: SmallVec<[Bind; 6]> =
        operands.iter().zip(&strides).map(|(v, s)| Bind::new(v, s, 1)).collect();
    binds.push(Bind::new(y, &y_strides, 1));
    let kernel = [&MAP1, &MAP2, &MAP3][operands.len() - 1];
    let is_contiguous = space.len() == 1 && strides.iter().all(|s| s[0] == 1);
    let can_be_wide = is_contiguous && function.has_vector_variant();
    for_each_window(
        cx,
        function.name(),
        &space,
        &[wide::ELEMENTS][..is_contiguous as usize],
        &binds,
        |window| {
            let size: usize = window.count.iter().product();
            let padded =
                |values: &[usize], fill| std::array::from_fn(|d| values.get(d).copied().unwrap_or(fill));
            let mut scalars =
                OutputLayout { size, d: padded(&window.count, 1), y: padded(&y_strides, 0) }.words();
            strides.iter().for_each(|s| padded(s, 0).write(&mut scalars));
            let wide = can_be_wide && wide::fits(size, &window.ranges);
            cx.launch(Launch {
                kernel,
                params: [function as u32, space.len() as u32, wide as u32, whole as u32],
                bindings: window.ranges,
                scalars,
                groups: if wide { wide::count_groups(size) } else { (size as u32).div_ceil(THREADS) },
                threads: THREADS,
                work: size as u64 * 4,
            });
        },
    )
}

/// `map` after converting the operands whose storage types have no compiled variant (`read` rejects them).
fn map_converted(
    cx: &Rc<Context>,
    function: Function,
    operands: &[&Value],
    read: impl Fn((usize, &&Value)) -> bool,
    y: &Value,
) -> Result<()> {
    let mut converted: SmallVec<[Value; 3]> = SmallVec::new();
    for (k, v) in operands.iter().enumerate() {
        converted.push(match read((k, v)) {
            true => (*v).clone(),
            false => {
                let f32 = cx.empty(v.shape.clone(), DType::F32)?;
                cast(cx, v, &f32)?;
                f32
            }
        });
    }
    map(cx, function, &converted.iter().collect::<SmallVec<[&Value; 3]>>(), y)
}

/// Appends y += x, elementwise over equal sizes, to accumulate gradients.
pub fn accumulate(cx: &Rc<Context>, y: &Value, x: &Value) -> Result<()> {
    let size = y.size();
    let binds = [Bind::new(x, &[1], 1), Bind::new(y, &[1], 1)];
    for_each_window(cx, "accumulate", &[size], &[wide::ELEMENTS], &binds, |window| {
        let n = window.count[0] as u32;
        let wide = wide::fits(window.count[0], &window.ranges);
        cx.launch(Launch {
            kernel: &ACCUMULATE,
            params: [0, 0, wide as u32, 0],
            bindings: window.ranges,
            scalars: Accumulate { size: n }.words(),
            groups: if wide { wide::count_groups(n as usize) } else { n.div_ceil(THREADS) },
            threads: THREADS,
            work: n as u64,
        });
    })
}

/// The strides of each operand.
type Strides = SmallVec<[Indices; 3]>;

/// Merges neighbouring dimensions that are contiguous in every operand. Returns the sizes (at least one dimension) and
/// each operand's strides.
fn collapse(shape: &Shape, operands: &[&Shape]) -> (Indices, Strides) {
    let size = shape.size();
    // The common case: no operand is broadcast, or only single numbers are.
    if operands.iter().all(|s| *s == shape || s.size() == 1) {
        let step = |s: &&Shape| Indices::from_elem((s.size() == size && size > 1) as usize, 1);
        return (Indices::from_elem(size, 1), operands.iter().map(step).collect());
    }
    let rank = shape.rank();
    let full: Strides = operands
        .iter()
        .map(|s| {
            let own = s.strides();
            (0..rank)
                .map(|d| match (d + s.rank()).checked_sub(rank) {
                    Some(i) if s[i] != 1 => own[i],
                    _ => 0,
                })
                .collect()
        })
        .collect();
    let mut space = Indices::new();
    let mut strides: Strides = operands.iter().map(|_| Indices::new()).collect();
    for d in 0..rank {
        let merges = !space.is_empty()
            && (shape[d] == 1
                || full
                    .iter()
                    .zip(&strides)
                    .all(|(f, s)| s[s.len() - 1] == f[d] * shape[d] || *space.last().unwrap() == 1));
        if merges && shape[d] == 1 {
            continue;
        }
        if merges {
            *space.last_mut().unwrap() *= shape[d];
            for (f, s) in full.iter().zip(&mut strides) {
                *s.last_mut().unwrap() = f[d];
            }
        } else {
            space.push(shape[d]);
            for (f, s) in full.iter().zip(&mut strides) {
                s.push(f[d]);
            }
        }
    }
    if space.is_empty() {
        space.push(1);
        strides.iter_mut().for_each(|s| s.push(0));
    }
    (space, strides)
}
