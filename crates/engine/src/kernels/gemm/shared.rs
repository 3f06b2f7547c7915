//! Low-rank products of one input on a GPU in software, two or three in one launch: a launch costs such a
//! device 14 to 26 µs.
//!
//! Maths: h_i = x·A_iᵀ. Layout: x [T, I], A_i [R_i, I], h_i [T, R_i], all contiguous. The first groups make
//! h_0, the next ones h_1, and so on, each summed as by itself (pairs.rs); where pairs do not fit, or a
//! binding would be too long, the caller launches them apart.

use std::rc::Rc;

use smallvec::SmallVec;

use super::LowRank;
use super::beside::PLAIN;
use super::pairs::{Along, Arrays, LANES, Pairs, halves_of, words, words_of};
use super::spelled::{SIZES, Spelled};
use super::{eights, starts_whole};
use crate::dtype::DType;
use crate::kernel::{Access, Kernel, Params, Scalar, Variant};
use crate::recording::Launch;
use crate::tensor::{Context, Value};

/// `params` = [columns of a tile, 1 where rows of x and A are whole words of eight].
static OF_TWO: Kernel = Kernel {
    name: "low_rank_h_of_two",
    bindings: &[
        ("x", Access::Read),
        ("a0", Access::Read),
        ("a1", Access::Read),
        ("h0", Access::Write),
        ("h1", Access::Write),
    ],
    scalars: &[
        Scalar::U32("rows"),
        Scalar::U32("features"),
        Scalar::U32("rank0"),
        Scalar::U32("rank1"),
        Scalar::U32("groups0"),
    ],
    wgsl: wgsl::<2>,
    cpu: |_| unreachable!("planned for a GPU in software alone"),
    variants: || variants(5),
};

static OF_THREE: Kernel = Kernel {
    name: "low_rank_h_of_three",
    bindings: &[
        ("x", Access::Read),
        ("a0", Access::Read),
        ("a1", Access::Read),
        ("a2", Access::Read),
        ("h0", Access::Write),
        ("h1", Access::Write),
        ("h2", Access::Write),
    ],
    scalars: &[
        Scalar::U32("rows"),
        Scalar::U32("features"),
        Scalar::U32("rank0"),
        Scalar::U32("rank1"),
        Scalar::U32("rank2"),
        Scalar::U32("groups0"),
        Scalar::U32("groups1"),
    ],
    wgsl: wgsl::<3>,
    cpu: |_| unreachable!("planned for a GPU in software alone"),
    variants: || variants(7),
};

pub const KERNELS: &[&Kernel] = &[&OF_TWO, &OF_THREE];

/// What the arrays of words, the ranks and the starts of A and h are called.
const NAMES: [[&str; 5]; 3] = [
    ["a0_words", "h0_words", "p.rank0", "p.a0_at", "p.h0_at"],
    ["a1_words", "h1_words", "p.rank1", "p.a1_at", "p.h1_at"],
    ["a2_words", "h2_words", "p.rank2", "p.a2_at", "p.h2_at"],
];

fn variants(bindings: usize) -> Vec<Variant> {
    let of = |columns, wide| Variant {
        params: [columns, wide, 0, 0],
        dtypes: vec![DType::F32; bindings],
        threads: LANES,
    };
    vec![of(2, 0), of(4, 0), of(2, 1), of(4, 1)]
}

fn tile(columns: u32) -> Pairs {
    Pairs { columns, a: Along::Terms, b: Along::Terms, ..PLAIN }
}

/// Columns of a tile, as the product by itself has them (`form`).
fn columns_of(rank: usize) -> u32 {
    if rank <= 16 { 2 } else { 4 }
}

fn wgsl<const N: usize>([columns, wide, ..]: Params) -> String {
    let tile = tile(columns);
    let wide = wide == 1;
    let mut out = words_of("x_words", 0, "read", wide) + &halves_of(DType::F32) + SIZES;
    let mut calls = String::new();
    for (i, [a, h, rank, a_at, h_at]) in NAMES.iter().enumerate().take(N) {
        let arrays = Arrays { a: "x_words", b: a, a2: "", b2: "", c: h, wide: [wide; 2] };
        let product = Spelled {
            sizes: ["p.rows", rank, "p.features"],
            a: ["p.x_at", "p.features", "1u"],
            b: [a_at, "1u", "p.features"],
            c: [h_at, rank],
            ..Spelled::default()
        };
        out += &words_of(a, 1 + i as u32, "read", wide);
        out += &words(h, (1 + N + i) as u32, "read_write");
        out += &tile.function(&format!("product{i}(p: Sizes, group: u32, lane: u32)"), false, arrays);
        let call = product.call(&format!("product{i}"), "rest", tile);
        calls += &match i + 1 < N {
            true => {
                format!("  if rest < p.groups{i} {{\n    {call}\n    return;\n  }}\n  rest -= p.groups{i};\n")
            }
            false => format!("  {call}\n"),
        };
    }
    out + &format!("fn kernel(group: u32, lane: u32) {{\n  var rest = group;\n{calls}}}\n")
}

/// Appends h_i = x·A_iᵀ for two or three factors in one launch; returns whether it did.
pub fn project_together(cx: &Rc<Context>, x: &Value, factors: &[&Value], h: &[Value]) -> bool {
    let kernel = match factors.len() {
        2 => &OF_TWO,
        3 => &OF_THREE,
        _ => return false,
    };
    let (rows, features) = (x.shape.rows(), x.shape.last());
    let ranks: SmallVec<[usize; 3]> = factors.iter().map(|a| a.shape[0]).collect();
    let columns = columns_of(ranks[0]);
    let values: SmallVec<[&Value; 7]> = [x].into_iter().chain(factors.iter().copied()).chain(h).collect();
    let alike = ranks.iter().all(|rank| columns_of(*rank) == columns);
    // Fewer rows have other tiles, and the fewest dot products.
    if rows <= 16 || !alike || !LowRank::fit(cx, &values, &[&[rows, features], &ranks[..]].concat()) {
        return false;
    }
    let [height, width] = tile(columns).block();
    let groups: SmallVec<[u32; 3]> =
        ranks.iter().map(|rank| (rows.div_ceil(height) * rank.div_ceil(width)) as u32).collect();
    let sizes = [rows, features].into_iter().chain(ranks.iter().copied()).map(|v| v as u32);
    let wide = eights(&[features]) && values[..=factors.len()].iter().all(|v| starts_whole(v));
    cx.launch(Launch {
        kernel,
        params: [columns, wide as u32, 0, 0],
        bindings: values.iter().map(|v| v.range()).collect(),
        scalars: sizes.chain(groups[..groups.len() - 1].iter().copied()).collect(),
        groups: groups.iter().sum(),
        threads: LANES,
        work: 2 * (rows * features * ranks.iter().sum::<usize>()) as u64,
    });
    true
}
