//! The product for a GPU in software (Mesa's llvmpipe): pairs of elements as words of 64 bits, and A
//! spread over the lanes of a subgroup.
//!
//! What such a driver makes of a shader decides: a subgroup is eight lanes of one vector; a load from a
//! buffer is a loop over the lanes of some nine cycles each, whether or not they load the same word;
//! a scalar of the launch is gathered at each use; but an element of another lane is one shuffle. So a
//! lane loads two neighbours at once, each lane for a row of A of its own, and the row's element comes
//! to all by `subgroupBroadcast`: of `rows` × `columns` sums a lane, a pair of terms costs
//! `columns` + `rows` / 8 loads for 2 · `rows` · `columns` multiply-adds.
//!
//! 1024 × 1024 × 1024, x·Wᵀ, Mesa 22.3.6 on two cores, GFLOP/s; in the same run a loop of 16
//! independent multiply-adds gives 53, one of 8 × 8 unrolled 121 (the driver's `fma` is a product and
//! a sum):
//!
//! | form                                                                    |      |
//! |-------------------------------------------------------------------------|------|
//! | a row of A for all lanes, 8 × 4 a lane; unrolled by 4 or 8              | 5.7, 6.3 |
//! | 12 × 4, by 4                                                            | 7.1  |
//! | A spread over lanes, 8 × 4, words of 32 bits                            | 5.5  |
//! | the same, 64 bits                                                       | 10.6 |
//! | 16 × 4, 32 × 4; 32 × 8 (sums no longer fit)                             | 21, 32; 21 |
//! | 32 × 4, scalars of the launch taken once: compiles in 0.2 s, not 1.6    | 36   |
//! | the same, lines read whole: 2 or 4 pairs of a row together              | 44, 46 |
//! | 48 × 4 by 2, by 4                                                       | 47, 41 |
//!
//! A second segment has sums of its own, which are added to the settled ones in registers: its bits are those
//! of two launches, and C is not read again. Stored, read and stored again, an adapted layer 576 → 1536 of 512
//! tokens took 34.1 ms forward and backward, 1.16 times the frozen one, and takes 32.1 (1.03 to 1.10 in three
//! runs each, by turns).
//!
//! Where neighbours lie along the terms, and rows are whole words of four pairs, those are read: 82 where
//! pairs alone make 59, on the same machine (x·W 60 to 69). Tried besides: words of two pairs of B's columns
//! as well, the same 82 and 68. A product 16 high (an adapter's d_A) has 8 columns a lane: the layer 576 → 1536
//! 27.4 ms instead of 27.9 there and back; 8 columns for d_x, whose sums are twice the registers, 32; 64 rows
//! for products 16 wide, no less than 32.
//!
//! Kept: 32 × 4 by 4. Rows that lie a power of two apart fall on one another in the first cache, which
//! is what reading lines whole is for; where the neighbours lie along the rows or columns, it matters
//! less.

use super::wgsl::{both, each, zeros};
use crate::dtype::DType;
use crate::kernel::Params;

/// Lanes of a subgroup, and of a workgroup.
pub const LANES: u32 = 8;
/// Pairs of terms that are taken together.
const UNROLL: u32 = 4;

/// Which way the neighbours of a pair lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Along the terms.
    Terms,
    /// Along C's rows for A, along its columns for B.
    Side,
}

/// What is compiled into a product of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs {
    pub rows: u32,
    pub columns: u32,
    pub a: Along,
    pub b: Along,
    /// How B is stored.
    pub stored: DType,
    pub accumulate: bool,
    /// Which way the second segment's B lies, where there is one; its A lies along the terms.
    pub second: Option<Along>,
    /// Whether factors whose neighbours lie along the terms are read four pairs at once.
    pub wide: bool,
}

/// What a product's arrays of words are called.
#[derive(Clone, Copy)]
pub struct Arrays {
    pub a: &'static str,
    /// The binding itself where B is stored by halves, whose words are pairs as they are.
    pub b: &'static str,
    pub a2: &'static str,
    pub b2: &'static str,
    pub c: &'static str,
    /// Whether the words of A and of B are of four pairs.
    pub wide: [bool; 2],
}

/// A segment of the terms: how its factors lie, and what its arrays are called.
#[derive(Clone, Copy)]
struct Segment {
    rows: u32,
    columns: u32,
    a: Along,
    b: Along,
    stored: DType,
    /// 2 for the second.
    number: &'static str,
    /// What its sums are called.
    sums: &'static str,
    a_words: &'static str,
    b_words: &'static str,
    wide: [bool; 2],
}

impl Pairs {
    pub fn params(self) -> Params {
        let stored = match self.stored {
            DType::F16 => 1,
            DType::BF16 => 2,
            _ => 0,
        };
        let flags = (self.a == Along::Side) as u32
            | ((self.b == Along::Side) as u32) << 1
            | (self.accumulate as u32) << 2
            | stored << 3
            | match self.second {
                None => 0,
                Some(Along::Terms) => 1,
                Some(Along::Side) => 2,
            } << 5
            | (self.wide as u32) << 7;
        [super::wgsl::PAIRS, self.rows, self.columns, flags]
    }

    pub fn of([_, rows, columns, flags]: Params) -> Pairs {
        let along = |bit: u32| if flags >> bit & 1 == 1 { Along::Side } else { Along::Terms };
        Pairs {
            rows,
            columns,
            a: along(0),
            b: along(1),
            stored: [DType::F32, DType::F16, DType::BF16][(flags >> 3 & 3) as usize],
            accumulate: flags >> 2 & 1 == 1,
            second: [None, Some(Along::Terms), Some(Along::Side)][(flags >> 5 & 3) as usize],
            wide: flags >> 7 == 1,
        }
    }

    /// Rows and columns of C that a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        [self.rows as usize, (self.columns * LANES) as usize]
    }

    /// The body of the kernel that is this product alone.
    pub fn body(self, bias: bool) -> String {
        let halves = self.stored != DType::F32;
        let arrays = Arrays {
            a: "a_words",
            b: if halves { "b" } else { "b_words" },
            a2: "a2_words",
            b2: "b2_words",
            c: "c_words",
            wide: [self.a, self.b].map(|along| self.wide && along == Along::Terms),
        };
        let [wide_a, wide_b] = arrays.wide;
        let second = 2 + bias as u32;
        let mut out = words_of(arrays.a, 0, "read", wide_a);
        if !halves {
            out += &words_of(arrays.b, 1, "read", wide_b);
        }
        if self.second.is_some() {
            out += &(words(arrays.a2, second, "read") + &words(arrays.b2, second + 1, "read"));
        }
        out += &words(arrays.c, second + 2 * self.second.is_some() as u32, "read_write");
        out + &halves_of(self.stored) + &self.function("kernel(group: u32, lane: u32)", bias, arrays)
    }

    /// The product as a function over `p`, the scalars of `gemm` and where its operands start. A lane's
    /// columns are neighbours in pairs, sixteen from one pair to the next.
    pub fn function(self, head: &str, bias: bool, arrays: Arrays) -> String {
        let columns = self.columns;
        let first = self.first(arrays);
        let second = self.second.map(|b| Segment {
            a: Along::Terms,
            b,
            stored: DType::F32,
            number: "2",
            sums: "s",
            a_words: arrays.a2,
            b_words: arrays.b2,
            wide: [false; 2],
            ..first
        });
        let biases = each(if bias { columns } else { 0 }, |j| {
            format!("    let bias{j} = load_bias(min(column + {}u, n - 1u));\n", column(j))
        });
        let scaled = self.scaled(&biases) + &self.added(self.accumulate, arrays.c);
        let then = second.map_or(String::new(), |second| second.sum() + &self.with_second());
        self.around(head, &first.sum(), &(scaled + &then + &self.stored(arrays.c)))
    }

    fn first(self, arrays: Arrays) -> Segment {
        let Pairs { rows, columns, a, b, stored, .. } = self;
        Segment {
            rows,
            columns,
            a,
            b,
            stored,
            number: "",
            sums: "c",
            a_words: arrays.a,
            b_words: arrays.b,
            wide: [arrays.wide[0], arrays.wide[1] && stored == DType::F32],
        }
    }

    /// The function that makes a tile by `terms` and `settled`.
    fn around(self, head: &str, terms: &str, settled: &str) -> String {
        let Pairs { rows, columns, .. } = self;
        format!(
            "fn {head} {{
  let blocks = p.row_blocks * p.column_blocks;
  let z = group / blocks;
  let block = group % blocks;
  let row = block / p.column_blocks * {rows}u;
  let column = block % p.column_blocks * {width}u + 2u * lane;
  let m = p.m;
  let n = p.n;
{zeros}{terms}{settled}}}
",
            width = columns * LANES,
            zeros = zeros("c", rows, columns, "var ")
                + &self.second.map_or(String::new(), |_| zeros("s", rows, columns, "var ")),
        )
    }

    /// The sums times alpha, with the biases that are named in `biases`, if any.
    fn scaled(self, biases: &str) -> String {
        let plus = |j: u32| if biases.is_empty() { String::new() } else { format!(" + bias{j}") };
        let sums =
            both(self.rows, self.columns, |i, j| format!("    c{i}_{j} = alpha * c{i}_{j}{};\n", plus(j)));
        format!("  {{\n    let alpha = p.alpha;\n{biases}{sums}  }}\n")
    }

    /// Adds the second segment's sums, as a launch of its own would to what the first one stored.
    fn with_second(self) -> String {
        let sums =
            both(self.rows, self.columns, |i, j| format!("    c{i}_{j} = alpha * s{i}_{j} + c{i}_{j};\n"));
        format!("  {{\n    let alpha = p.alpha2;\n{sums}  }}\n")
    }

    /// Adds what C holds, where `adds`.
    fn added(self, adds: bool, c_words: &str) -> String {
        if !adds {
            return String::new();
        }
        self.each_pair(|at, x, y| {
            format!("      let old = {c_words}[{at}];\n      {x} += first(old);\n      {y} += second(old);\n")
        })
    }

    fn stored(self, c_words: &str) -> String {
        self.each_pair(|at, x, y| {
            format!("      {c_words}[{at}] = u64(bitcast<u32>({x})) | (u64(bitcast<u32>({y})) << 32u);\n")
        })
    }

    /// A line for each pair of C that is there: its place, and its two sums.
    fn each_pair(self, line: impl Fn(String, String, String) -> String) -> String {
        let rows = each(self.rows, |i| {
            let pairs = each(self.columns / 2, |q| {
                let (x, y) = (format!("c{i}_{}", 2 * q), format!("c{i}_{}", 2 * q + 1));
                let line = line(format!("at + {}u", q * LANES), x, y);
                format!("    if column + {}u < n {{\n{line}    }}\n", column(2 * q))
            });
            format!("  if row + {i}u < m {{\n    let at = place + (row + {i}u) * c_row;\n{pairs}  }}\n")
        });
        format!(
            "  {{
    let c_row = p.c_row / 2u;
    let place = (p.c_at + z * p.c_batch + column) / 2u;
{rows}  }}
"
        )
    }
}

impl Segment {
    /// Adds the segment's terms to the sums.
    fn sum(self) -> String {
        let number = self.number;
        let (batch_a, batch_b) = match number {
            "" => (" + z * p.a_batch", " + z * p.b_batch"),
            _ => ("", ""),
        };
        // The second is short: its lines are read whole by every pair.
        let many = match number {
            "" => format!(
                "    for (; k + {}u < pairs; k += {UNROLL}u) {{\n{}    }}\n",
                UNROLL - 1,
                self.terms(UNROLL)
            ),
            _ => String::new(),
        };
        format!(
            "  {{
    let a_start = p.a{number}_at{batch_a};
    let b_start = p.b{number}_at{batch_b};
    let a_step = p.a{number}_column / 2u;
    let b_step = p.b{number}_row / 2u;
    let pairs = p.k{number} / 2u;
    var k = 0u;
{places}{many}    for (; k < pairs; k++) {{
{one}    }}
  }}
",
            places = self.places(),
            one = self.terms(1),
        )
    }

    /// Where the lane's words of A and B start. Past the ends the last ones are read again.
    fn places(self) -> String {
        let number = self.number;
        let a = match self.a {
            Along::Terms => each(self.rows / LANES, |q| {
                let row = format!("min(row + {}u + lane, m - 1u)", q * LANES);
                format!("    let a{q} = (a_start + {row} * p.a{number}_row) / 2u;\n")
            }),
            Along::Side => each(self.rows / (2 * LANES), |q| {
                let row = format!("min(row + {}u + 2u * lane, m - 2u)", 2 * q * LANES);
                format!("    let a{q} = (a_start + {row}) / 2u;\n")
            }),
        };
        let b = match self.b {
            Along::Terms => each(self.columns, |j| {
                let column = format!("min(column + {}u, n - 1u)", column(j));
                format!("    let b{j} = (b_start + {column} * p.b{number}_column) / 2u;\n")
            }),
            Along::Side => each(self.columns / 2, |q| {
                let column = format!("min(column + {}u, n - 2u)", column(2 * q));
                format!("    let b{q} = (b_start + {column}) / 2u;\n")
            }),
        };
        a + &b
    }

    /// The loads and multiply-adds of `count` pairs of terms from `k` on.
    fn terms(self, count: u32) -> String {
        let sums = self.sums;
        let (b_array, b_first, b_second) = match self.stored {
            DType::F32 => (self.b_words, "first", "second"),
            _ => (self.b_words, "low", "high"),
        };
        // Loads a pair, and names its halves.
        let load = |word: String, from: String, halves: [String; 2], read: [&str; 2]| {
            let half = |i: usize| format!("      let {} = {}({word});\n", halves[i], read[i]);
            format!("      let {word} = {from};\n{}{}", half(0), half(1))
        };
        // The pair `pair` of an array, which may lie in a word of four.
        let pair_of = |array: &str, pair: String, wide: bool| match wide {
            true => format!("{array}[({pair}) >> 2u][({pair}) & 3u]"),
            false => format!("{array}[{pair}]"),
        };
        let [wide_a, wide_b] = self.wide;
        let b_load = |word: String, from: String, halves: [String; 2]| {
            load(word, pair_of(b_array, from, wide_b), halves, [b_first, b_second])
        };
        let a_load = |word: String, from: String, halves: [String; 2]| {
            load(word, pair_of(self.a_words, from, wide_a), halves, ["first", "second"])
        };
        // Four pairs of terms from k on.
        let four = |word: String, array: &str, place: String, value: String| {
            let pairs = each(UNROLL, |u| {
                let part = ["x", "y", "z", "w"][u as usize];
                let half = |t: u32, half: &str| format!("      let {value}_{t} = {half}({word}.{part});\n");
                half(2 * u, "first") + &half(2 * u + 1, "second")
            });
            format!("      let {word} = {array}[({place} + k) >> 2u];\n{pairs}")
        };
        // A term t is the half t % 2 of its pair, or a word of its own.
        let b_loads = match self.b {
            Along::Terms if wide_b && count == UNROLL => {
                each(self.columns, |j| four(format!("w{j}"), b_array, format!("b{j}"), format!("v{j}")))
            }
            Along::Terms => both(self.columns, count, |j, u| {
                let halves = [2 * u, 2 * u + 1].map(|t| format!("v{j}_{t}"));
                b_load(format!("w{j}_{u}"), format!("b{j} + k + {u}u"), halves)
            }),
            Along::Side => both(self.columns / 2, 2 * count, |q, t| {
                let halves = [2 * q, 2 * q + 1].map(|j| format!("v{j}_{t}"));
                b_load(format!("w{q}_{t}"), format!("b{q} + (2u * k + {t}u) * b_step"), halves)
            }),
        };
        let a_loads = match self.a {
            Along::Terms if wide_a && count == UNROLL => each(self.rows / LANES, |q| {
                four(format!("x{q}"), self.a_words, format!("a{q}"), format!("y{q}"))
            }),
            Along::Terms => both(self.rows / LANES, count, |q, u| {
                let halves = [2 * u, 2 * u + 1].map(|t| format!("y{q}_{t}"));
                a_load(format!("x{q}_{u}"), format!("a{q} + k + {u}u"), halves)
            }),
            Along::Side => both(self.rows / (2 * LANES), 2 * count, |q, t| {
                let halves = [2 * q, 2 * q + 1].map(|i| format!("y{i}_{t}"));
                a_load(format!("x{q}_{t}"), format!("a{q} + (2u * k + {t}u) * a_step"), halves)
            }),
        };
        let products = both(self.rows, 2 * count, |i, t| {
            // The lane that holds row i, and which of its values it is.
            let (value, lane) = match self.a {
                Along::Terms => (i / LANES, i % LANES),
                Along::Side => (i / (2 * LANES) * 2 + i % 2, i % (2 * LANES) / 2),
            };
            format!("      let u{i}_{t} = subgroupBroadcast(y{value}_{t}, {lane}u);\n")
                + &each(self.columns, |j| {
                    format!("      {sums}{i}_{j} = fma(u{i}_{t}, v{j}_{t}, {sums}{i}_{j});\n")
                })
        });
        format!("{b_loads}{a_loads}{products}")
    }
}

/// A binding as words of 64 bits, or of four times as many.
pub fn words_of(name: &str, binding: u32, access: &str, wide: bool) -> String {
    match wide {
        true => {
            format!("@group(0) @binding({binding}) var<storage, {access}> {name}: array<vec4<u64>>;\n")
        }
        false => words(name, binding, access),
    }
}

/// A binding as words of 64 bits.
pub fn words(name: &str, binding: u32, access: &str) -> String {
    format!("@group(0) @binding({binding}) var<storage, {access}> {name}: array<u64>;\n")
}

/// What takes a word apart: of two f32, and of two halves stored as `stored`.
pub fn halves_of(stored: DType) -> String {
    let words = "fn first(v: u64) -> f32 { return bitcast<f32>(u32(v)); }
fn second(v: u64) -> f32 { return bitcast<f32>(u32(v >> 32u)); }
";
    let halves = match stored {
        DType::F16 => {
            "fn low(v: u32) -> f32 { return unpack2x16float(v).x; }
fn high(v: u32) -> f32 { return unpack2x16float(v).y; }
"
        }
        DType::BF16 => {
            "fn low(v: u32) -> f32 { return bitcast<f32>(v << 16u); }
fn high(v: u32) -> f32 { return bitcast<f32>(v & 0xffff0000u); }
"
        }
        _ => "",
    };
    format!("{words}{halves}")
}

/// How far column `j` of a lane lies from its first.
fn column(j: u32) -> u32 {
    j / 2 * 2 * LANES + j % 2
}
