//! The gradients of a low-rank path on a GPU in software, two products in one launch: a launch costs such
//! a device 14 to 26 µs.
//!
//! Maths: Z = s·d·B and d_B (+)= s·dᵀ·h; then d_x (+)= d·W + Z·A and d_A (+)= Zᵀ·x. Layout: d [T, O], W
//! [O, I] or [I, O], A [R, I], B [O, R], h and Z [T, R], x and d_x [T, I], all contiguous. The first groups
//! make the first product, the others the second. Each is summed as by itself (pairs.rs); where pairs do
//! not fit, or a binding would be too long, the caller launches them apart.

use std::rc::Rc;

use smallvec::SmallVec;

use super::pairs::{Along, Arrays, LANES, Pairs, halves_of, words, words_of};
use super::spelled::{SIZES, Spelled};
use super::{eights, starts_whole};
use crate::device::Profile;
use crate::dtype::DType;
use crate::kernel::{Access, Kernel, Params, Scalar, Variant};
use crate::recording::Launch;
use crate::tensor::{Context, Value};

/// Sizes of the layer, the factor of its path, and how many groups make the first product.
const SCALARS: [Scalar; 6] = [
    Scalar::U32("rows"),
    Scalar::U32("features"),
    Scalar::U32("out"),
    Scalar::U32("rank"),
    Scalar::F32("scale"),
    Scalar::U32("first_groups"),
];

/// `params` = [columns of a tile, 1 where d_B is added to, 1 where rows of d are whole words of eight].
static TO_RANK: Kernel = Kernel {
    name: "low_rank_z_and_b",
    bindings: &[
        ("d", Access::Read),
        ("b", Access::Read),
        ("h", Access::Read),
        ("z", Access::Write),
        ("d_b", Access::ReadWrite),
    ],
    scalars: &SCALARS,
    wgsl: to_rank,
    cpu: |_| unreachable!("planned for a GPU in software alone"),
    variants: || {
        let of = |params| Variant { params, dtypes: vec![DType::F32; 5], threads: LANES };
        let all = [0, 1, 2, 3].map(|both| [both & 1, both >> 1]);
        let columns = [2, 4].into_iter();
        columns.flat_map(|columns| all.map(|[adds, wide]| of([columns, adds, wide, 0]))).collect()
    },
};

/// `params` = [1 where W is [I, O], how W is stored, rows of d_A's tile, which outputs are added to: 1 for
/// d_A, 2 for d_x; and 4 where rows of d and, if it is [I, O], of W are whole words of eight].
static FROM_RANK: Kernel = Kernel {
    name: "low_rank_x_and_a",
    bindings: &[
        ("d", Access::Read),
        ("w", Access::Read),
        ("z", Access::Read),
        ("a", Access::Read),
        ("x", Access::Read),
        ("d_x", Access::ReadWrite),
        ("d_a", Access::ReadWrite),
    ],
    scalars: &SCALARS,
    wgsl: from_rank,
    cpu: |_| unreachable!("planned for a GPU in software alone"),
    variants: || {
        let mut all = Vec::new();
        for stored in STORED {
            for [fan_in_fan_out, rows, adds] in [
                [0, 16, 0],
                [0, 16, 3],
                [1, 32, 2],
                [1, 16, 1],
                [0, 32, 1],
                [0, 16, 4],
                [0, 16, 7],
                [1, 32, 6],
                [1, 16, 5],
            ] {
                let mut dtypes = vec![DType::F32; 7];
                dtypes[1] = stored;
                let params = [fan_in_fan_out, number_of(stored), rows, adds];
                all.push(Variant { params, dtypes, threads: LANES });
            }
        }
        all
    },
};

pub const KERNELS: &[&Kernel] = &[&TO_RANK, &FROM_RANK];

const STORED: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn number_of(stored: DType) -> u32 {
    STORED.iter().position(|s| *s == stored).expect("weights are floats") as u32
}

pub(super) const PLAIN: Pairs = Pairs {
    rows: 32,
    columns: 4,
    a: Along::Side,
    b: Along::Side,
    stored: DType::F32,
    accumulate: false,
    second: None,
    wide: false,
};

/// The tiles of Z and of d_B.
fn tiles_to_rank([columns, adds, ..]: Params) -> [Pairs; 2] {
    [Pairs { columns, a: Along::Terms, ..PLAIN }, Pairs { columns, accumulate: adds == 1, ..PLAIN }]
}

/// The tiles of d_x and of d_A.
fn tiles_from_rank([fan_in_fan_out, stored, rows, adds]: Params) -> [Pairs; 2] {
    let b = if fan_in_fan_out == 1 { Along::Terms } else { Along::Side };
    let stored = STORED[stored as usize];
    let second = Some(Along::Side);
    let d_x = Pairs { a: Along::Terms, b, stored, second, accumulate: adds & 2 != 0, ..PLAIN };
    [d_x, Pairs { rows, columns: if rows == 16 { 8 } else { 4 }, accumulate: adds & 1 != 0, ..PLAIN }]
}

fn to_rank(params: Params) -> String {
    let [z, d_b] = tiles_to_rank(params);
    let of_z = Spelled {
        sizes: ["p.rows", "p.rank", "p.out"],
        a: ["p.d_at", "p.out", "1u"],
        b: ["p.b_at", "p.rank", "1u"],
        c: ["p.z_at", "p.rank"],
        alpha: "p.scale",
        ..Spelled::default()
    };
    let of_b = Spelled {
        sizes: ["p.out", "p.rank", "p.rows"],
        a: ["p.d_at", "1u", "p.out"],
        b: ["p.h_at", "p.rank", "1u"],
        c: ["p.d_b_at", "p.rank"],
        alpha: "p.scale",
        ..Spelled::default()
    };
    let wide = params[2] == 1;
    let arrays = Arrays { a: "d_words", b: "b_words", a2: "", b2: "", c: "z_words", wide: [wide, false] };
    words_of("d_words", 0, "read", wide)
        + &words("b_words", 1, "read")
        + &words("h_words", 2, "read")
        + &words("z_words", 3, "read_write")
        + &words("d_b_words", 4, "read_write")
        + &halves_of(DType::F32)
        + SIZES
        + &z.function(FIRST, false, arrays)
        + &d_b.function(SECOND, false, Arrays { b: "h_words", c: "d_b_words", ..arrays })
        + &both_of(&of_z, z, &of_b, d_b)
}

fn from_rank(params: Params) -> String {
    let [d_x, d_a] = tiles_from_rank(params);
    let of_x = Spelled {
        sizes: ["p.rows", "p.features", "p.out"],
        a: ["p.d_at", "p.out", "1u"],
        b: match params[0] {
            1 => ["p.w_at", "1u", "p.out"],
            _ => ["p.w_at", "p.features", "1u"],
        },
        c: ["p.d_x_at", "p.features"],
        second: Some(("p.rank", ["p.z_at", "p.rank", "1u"], ["p.a_at", "p.features", "1u"])),
        ..Spelled::default()
    };
    let of_a = Spelled {
        sizes: ["p.rank", "p.features", "p.rows"],
        a: ["p.z_at", "1u", "p.rank"],
        b: ["p.x_at", "p.features", "1u"],
        c: ["p.d_a_at", "p.features"],
        ..Spelled::default()
    };
    let halves = d_x.stored != DType::F32;
    let wide = params[3] & 4 != 0;
    let wide_w = wide && params[0] == 1 && !halves;
    let arrays = Arrays {
        a: "d_words",
        b: if halves { "w" } else { "w_words" },
        a2: "z_words",
        b2: "a_words",
        c: "d_x_words",
        wide: [wide, wide_w],
    };
    words_of("d_words", 0, "read", wide)
        + &(if halves { String::new() } else { words_of("w_words", 1, "read", wide_w) })
        + &words("z_words", 2, "read")
        + &words("a_words", 3, "read")
        + &words("x_words", 4, "read")
        + &words("d_x_words", 5, "read_write")
        + &words("d_a_words", 6, "read_write")
        + &halves_of(d_x.stored)
        + SIZES
        + &d_x.function(FIRST, false, arrays)
        + &d_a.function(
            SECOND,
            false,
            Arrays { a: "z_words", b: "x_words", c: "d_a_words", wide: [false; 2], ..arrays },
        )
        + &both_of(&of_x, d_x, &of_a, d_a)
}

const FIRST: &str = "first_product(p: Sizes, group: u32, lane: u32)";
const SECOND: &str = "second_product(p: Sizes, group: u32, lane: u32)";

fn both_of(first: &Spelled, first_tile: Pairs, second: &Spelled, second_tile: Pairs) -> String {
    format!(
        "fn kernel(group: u32, lane: u32) {{
  if group < p.first_groups {{
    {}
  }} else {{
    {}
  }}
}}
",
        first.call("first_product", "group", first_tile),
        second.call("second_product", "group - p.first_groups", second_tile),
    )
}

/// A path over all rows and outputs of a layer, in backward.
pub struct LowRank<'a> {
    /// What flows into y, [T, O].
    pub d: &'a Value,
    /// [O, R]
    pub b: &'a Value,
    pub scale: f32,
    pub rows: usize,
    pub features: usize,
    pub out: usize,
    pub rank: usize,
}

impl LowRank<'_> {
    /// Whether the device makes two products in a launch at all.
    pub fn suits(profile: &Profile) -> bool {
        profile.software && profile.subgroup == LANES
    }

    fn fits(&self, cx: &Context, values: &[&Value]) -> bool {
        LowRank::fit(cx, values, &[self.rows, self.features, self.out, self.rank])
    }

    /// Whether pairs fit all of `sizes`, and `values` can be bound whole.
    pub(super) fn fit(cx: &Context, values: &[&Value], sizes: &[usize]) -> bool {
        let limit = cx.profile.binding_limit.saturating_sub(256);
        let whole = |v: &&Value| v.bytes() as u64 <= limit;
        let aligned = |v: &&Value| (v.range().offset / v.dtype.bytes() as u64).is_multiple_of(2);
        LowRank::suits(&cx.profile)
            && sizes.iter().all(|s| *s > 0 && s.is_multiple_of(2))
            && values.iter().all(whole)
            && values.iter().all(aligned)
    }

    fn launch(
        &self,
        cx: &Context,
        kernel: &'static Kernel,
        params: Params,
        values: &[&Value],
        products: [(Pairs, [usize; 2]); 2],
        work: usize,
    ) {
        let groups = products.map(|(tile, [m, n])| {
            let [height, width] = tile.block();
            (m.div_ceil(height) * n.div_ceil(width)) as u32
        });
        let sizes = [self.rows, self.features, self.out, self.rank].map(|v| v as u32);
        cx.launch(Launch {
            kernel,
            params,
            bindings: values.iter().map(|v| v.range()).collect(),
            scalars: SmallVec::from_iter(sizes.into_iter().chain([self.scale.to_bits(), groups[0]])),
            groups: groups[0] + groups[1],
            threads: LANES,
            work: work as u64,
        });
    }

    /// Appends Z = s·d·B and d_B = s·dᵀ·h, or d_B += that; returns whether it did.
    pub fn z_and_d_b(&self, cx: &Rc<Context>, h: &Value, z: &Value, d_b: &Value, adds: bool) -> bool {
        let values = [self.d, self.b, h, z, d_b];
        if !self.fits(cx, &values) {
            return false;
        }
        let wide = eights(&[self.out]) && starts_whole(self.d);
        let params = [if self.rank <= 16 { 2 } else { 4 }, adds as u32, wide as u32, 0];
        let [of_z, of_b] = tiles_to_rank(params);
        let products = [(of_z, [self.rows, self.rank]), (of_b, [self.out, self.rank])];
        self.launch(cx, &TO_RANK, params, &values, products, 4 * self.rows * self.out * self.rank);
        true
    }

    /// Appends d_x = d·W + Z·A and d_A = Zᵀ·x, or adds that where a place says so; returns whether it did.
    pub fn d_x_and_d_a(
        &self,
        cx: &Rc<Context>,
        [w, z, a, x]: [&Value; 4],
        fan_in_fan_out: bool,
        (d_x, adds_x): &(Value, bool),
        (d_a, adds_a): &(Value, bool),
    ) -> bool {
        let values = [self.d, w, z, a, x, d_x, d_a];
        if !self.fits(cx, &values) {
            return false;
        }
        let rows = if self.rank <= 16 { 16 } else { 32 };
        let wide = eights(&[self.out])
            && starts_whole(self.d)
            && (!fan_in_fan_out || w.dtype != DType::F32 || starts_whole(w));
        let adds = *adds_a as u32 | (*adds_x as u32) << 1 | (wide as u32) << 2;
        let params = [fan_in_fan_out as u32, number_of(w.dtype), rows, adds];
        let [of_x, of_a] = tiles_from_rank(params);
        let products = [(of_x, [self.rows, self.features]), (of_a, [self.rank, self.features])];
        let work = 2 * self.rows * self.features * (self.out + 2 * self.rank);
        self.launch(cx, &FROM_RANK, params, &values, products, work);
        true
    }
}
