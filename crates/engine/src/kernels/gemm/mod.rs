//! General matrix products.
//!
//! Maths: C = α·A·B + bias, or C += …, over a batch. A is [M, K], B is [K, N], C is [M, N]. Each is read through a row
//! stride and a column stride, so transposition costs no copy, and B may be stored as f16, bf16 or in blocks (frozen
//! weights). All sums are in f32, in ascending k.
//!
//! GPU: tiles, the outer variant, dot products, and few rows by columns (shader.rs); plan.rs chooses. Where C is small,
//! K is split (split.rs), which changes the order of sums. CPU: the products of `lowrank_cpu` (native/).

mod bindings;
mod columns;
mod dots;
pub(in crate::kernels) mod emit;
pub(crate) mod in_f16;
pub(in crate::kernels) mod native;
mod operands;
mod outer;
pub mod plan;
mod shader;
mod split;
pub(in crate::kernels) mod stage;
#[cfg(test)]
pub(crate) mod tests;
pub(in crate::kernels) mod tile;
mod together;
pub(crate) mod tuned;

use bindings::{A, A2, B, B2, BIAS, Binding, C, Scalars, SegmentScalars, TwoSegmentScalars};
pub use operands::{Gemm, Matrix, Precision, Segment};
use plan::{Config, list_candidates};
pub use together::{can_multiply_together, multiply_together};

use std::rc::Rc;

use lowrank_cpu::gemm::{ALIASING_STRIDE, LINE};
use lowrank_cpu::quant::BlockType;
use smallvec::SmallVec;

use crate::context::{Context, Value};
use crate::dtype::DType;
use crate::error::Result;
use crate::kernel::{Implementations, Kernel, Launch, Params, Range, Variant};
use crate::kernels::elementwise::{Function, map};
use crate::launch::{Bind, for_each_window};
use crate::profile::Kind;

/// The leading dimension, in elements, for a factor of `columns` columns: a stride of a large power of two aliases in
/// L1, and the CPU product would copy them first.
pub fn row_stride(columns: usize) -> usize {
    if columns.is_multiple_of(ALIASING_STRIDE) { columns + LINE } else { columns }
}

static GEMM: Kernel = define_kernel::<false, false, 2>("gemm", &[A, B, C]);
static GEMM_BIAS: Kernel = define_kernel::<true, false, 3>("gemm_bias", &[A, B, BIAS, C]);
static GEMM_TWO: Kernel = define_kernel::<false, true, 4>("gemm_two", &[A, B, A2, B2, C]);
static GEMM_TWO_BIAS: Kernel = define_kernel::<true, true, 5>("gemm_two_bias", &[A, B, BIAS, A2, B2, C]);

/// The kernel of one segment or two; `OUT` is the binding of C.
const fn define_kernel<const BIASED: bool, const TWO: bool, const OUT: usize>(
    name: &'static str,
    bindings: &'static [Binding],
) -> Kernel {
    Kernel {
        name,
        bindings,
        scalars: if TWO { TwoSegmentScalars::members } else { Scalars::members },
        implementations: Implementations::Both {
            wgsl: |params| shader::emit_body(params, BIASED, TWO),
            native: native::gemm::<BIASED, TWO, OUT>,
        },
        variants: || list_variants(BIASED, TWO),
    }
}

pub const KERNELS: &[&Kernel] = &[
    &GEMM,
    &GEMM_BIAS,
    &GEMM_TWO,
    &GEMM_TWO_BIAS,
    split::KERNELS[0],
    split::KERNELS[1],
    together::KERNELS[0],
    together::KERNELS[1],
    in_f16::KERNELS[0],
    in_f16::KERNELS[1],
    in_f16::KERNELS[2],
];

/// The properties of a variant in words, such as `tile 64×64×16`; none if the kernel has one variant.
pub fn describe(kernel: &Kernel, params: Params) -> Vec<String> {
    match kernel.name {
        "gemm_scales" => vec![["contiguous terms", "contiguous lines"][params[0] as usize & 1].into()],
        "gemm_parts" | "gemm_parts_bias" => Vec::new(),
        _ => Config::from_params(params).describe(),
    }
}

fn list_variants(bias: bool, two: bool) -> Vec<Variant> {
    let plain = [DType::F32, DType::F16, DType::BF16];
    let storage = plain.into_iter().chain(BlockType::EVERY.map(DType::Block));
    storage
        .flat_map(|b| {
            let mut dtypes = vec![DType::F32, b, DType::F32];
            dtypes.extend(bias.then_some(DType::F32));
            dtypes.extend([DType::F32; 2].iter().filter(|_| two));
            Config::list(b, bias, two).into_iter().map(move |config| Variant {
                params: config.params(),
                dtypes: dtypes.clone(),
                threads: config.threads(),
            })
        })
        .collect()
}

/// Appends C = α·A·B + bias, or C += α·A·B + bias. C is row-major; `bias` has N elements.
pub fn gemm(cx: &Rc<Context>, g: Gemm, a: Matrix, b: Matrix, bias: Option<&Value>, c: Matrix) -> Result<()> {
    gemm_with(cx, g, a, b, bias, None, c)
}

/// Appends `gemm` and C += the second segment: as one launch if there are enough rows and the second segment's factors
/// can be bound whole.
pub fn gemm_with(
    cx: &Rc<Context>,
    g: Gemm,
    a: Matrix,
    b: Matrix,
    bias: Option<&Value>,
    second: Option<Segment>,
    c: Matrix,
) -> Result<()> {
    debug_assert!(c.column == 1, "the columns of a product are neighbours");
    debug_assert!(g.batch <= 1 || c.batch > 0, "products of a batch do not share their place");
    debug_assert!(second.is_none() || g.batch == 1, "a second segment is of one matrix");
    let gpu = cx.profile.kind == Kind::Gpu;
    let g = g.precision(in_f16::resolve_precision(cx, g.precision));
    let (g, a, c) = if gpu { plan::collapse_batch(g, a, &b, c) } else { (g, a, c) };
    let more = |s: &Segment| Gemm::new(g.m, g.n, s.k).alpha(s.alpha).accumulate();
    let part = if gpu { split::find_part(&g, &a, &b) } else { None };
    let limit = cx.profile.binding_limit.saturating_sub(256);
    let can_fuse = |s: &Segment| {
        let fits = [s.a, s.b].iter().all(|factor| factor.value.bytes() as u64 <= limit);
        // Products of few rows are summed in another order.
        let few = plan::has_few_rows(&g, &a, &b) || plan::has_few_rows(&more(s), &s.a, &s.b);
        fits && g.k > 0 && s.k > 0 && !few && part.is_none() && !plan::is_in_f16(&g, &b)
    };
    let (fused, separate) = match second {
        Some(s) if can_fuse(&s) => (Some(s), None),
        separate => (None, separate),
    };
    match part {
        _ if g.k == 0 => append_empty_sum(cx, g, bias, c)?,
        Some(part) => split::gemm(cx, part, g, a, b, bias, c)?,
        None => {
            let config = choose(cx, &g, &a, &b, &c, [bias.is_some(), fused.is_some()]);
            append(cx, config, g, a, b, bias, fused, c)?
        }
    }
    match separate {
        Some(s) => gemm(cx, more(&s), s.a, s.b, None, c),
        None => Ok(()),
    }
}

/// The variant of a product: among those with the same bits, the one known to be fastest on the device.
fn choose(cx: &Context, g: &Gemm, a: &Matrix, b: &Matrix, c: &Matrix, more: [bool; 2]) -> Config {
    let configs = list_candidates(g, a, b, c, more, cx.profile.subgroup > 0);
    let limit = cx.profile.binding_limit.saturating_sub(256);
    // If a matrix exceeds the binding limit, the block size decides where it is split, and with it the sum's order.
    match [a, b, c].iter().all(|matrix| matrix.value.bytes() as u64 <= limit) {
        true => cx.choose_tuned(|| tuned::classify(g, a, b, more), &configs, |config| config.params()),
        false => configs[0],
    }
}

/// Appends the product as one sum, by `config`, with the second segment.
fn append(
    cx: &Rc<Context>,
    config: Config,
    g: Gemm,
    a: Matrix,
    b: Matrix,
    bias: Option<&Value>,
    second: Option<Segment>,
    c: Matrix,
) -> Result<()> {
    let space = [g.batch, g.m, g.n, g.k];
    let [height, width] = config.block();
    debug_assert!(!config.is_in_f16() || second.is_none(), "a second segment is in f32");
    let scales = if config.is_in_f16() { Some(in_f16::Scales::new(cx, &g, &b)?) } else { None };
    let mut binds: SmallVec<[Bind; 4]> = SmallVec::new();
    binds.push(Bind::new(a.value, &[a.batch, a.row, 0, a.column], 1));
    binds.push(Bind::new(b.value, &[b.batch, 0, b.column, b.row], 1));
    binds.extend(bias.map(|bias| Bind::new(bias, &[0, 0, 1, 0], 1)));
    binds.push(Bind::new(c.value, &[c.batch, c.row, 1, 0], 1));
    // The second segment does not influence how K is split, so the product is summed alike with and without it.
    for_each_window(cx, "matmul", &space, &[1, height, width, 1], &binds, |mut w| {
        let [batch, m, n, k] = [0, 1, 2, 3].map(|d| w.count[d]);
        // The bias is added with the first part of the sum, the second segment with the last.
        let (first, last) = (w.start[3] == 0, w.start[3] + k == g.k);
        let with_bias = bias.is_some() && first;
        if bias.is_some() && !first {
            w.ranges.remove(2);
        }
        let second = second.filter(|_| last);
        if let Some(s) = &second {
            let at = w.ranges.len() - 1;
            w.ranges.insert_many(at, bind_segment(s, [w.start[1], m], [w.start[2], n]));
        }
        if let Some(scales) = &scales {
            let scale_ranges = scales.append(cx, [batch, m, n, k], [&a, &b], [&w.ranges[0], &w.ranges[1]]);
            w.ranges.insert_many(2, scale_ranges);
        }
        let accumulate = g.accumulate || !first;
        let (row_blocks, column_blocks) = (m.div_ceil(height), n.div_ceil(width));
        let config = config.restrict_to([m, n, k], &w.ranges[0], &w.ranges[1], &w.ranges[w.ranges.len() - 1]);
        let scalars = Scalars {
            m,
            n,
            k,
            batch,
            a_batch: a.batch,
            a_row: a.row,
            a_column: a.column,
            b_batch: b.batch,
            b_row: b.row,
            b_column: b.column,
            c_batch: c.batch,
            c_row: c.row,
            alpha: g.alpha,
            accumulate,
            row_blocks,
            column_blocks,
            subgroup: cx.profile.subgroup,
            rounded: g.precision == Precision::Bf16,
        };
        let more = second.as_ref().map(SegmentScalars::new);
        let terms = k + second.map_or(0, |s| s.k);
        cx.launch(Launch {
            kernel: select_kernel(with_bias, second.is_some(), scales.is_some()),
            params: config.params(),
            bindings: w.ranges,
            scalars: match more {
                Some(second) => TwoSegmentScalars { first: scalars, second }.words(),
                None => scalars.words(),
            },
            groups: (batch * row_blocks * column_blocks) as u32,
            threads: config.threads(),
            work: 2 * (batch * m * n * terms) as u64,
        });
    })
}

/// The ranges of a second segment's factors for a window of rows and columns of C, each as [start, count].
fn bind_segment(s: &Segment, [row, rows]: [usize; 2], [column, columns]: [usize; 2]) -> [Range; 2] {
    let part = |factor: &Matrix, step: usize, start: usize, count: usize, along: usize| {
        factor.value.part(start * step, (count - 1) * step + (s.k - 1) * along + 1)
    };
    [part(&s.a, s.a.row, row, rows, s.a.column), part(&s.b, s.b.column, column, columns, s.b.row)]
}

fn select_kernel(biased: bool, two: bool, in_f16: bool) -> &'static Kernel {
    match (biased, two) {
        (false, _) if in_f16 => &in_f16::PRODUCT,
        (true, _) if in_f16 => &in_f16::PRODUCT_BIAS,
        (false, false) => &GEMM,
        (true, false) => &GEMM_BIAS,
        (false, true) => &GEMM_TWO,
        (true, true) => &GEMM_TWO_BIAS,
    }
}

/// Appends a sum of no terms: the bias, or 0.
fn append_empty_sum(cx: &Rc<Context>, g: Gemm, bias: Option<&Value>, c: Matrix) -> Result<()> {
    debug_assert_eq!(c.value.size(), g.batch * g.m * g.n);
    match (bias, g.accumulate) {
        (None, true) => {}
        (None, false) => cx.zero(c.value),
        (Some(bias), false) => map(cx, Function::Copy, &[bias], &c.value.reshape([g.batch * g.m, g.n]))?,
        (Some(_), true) => unreachable!("a bias is added to a fresh product"),
    }
    Ok(())
}
