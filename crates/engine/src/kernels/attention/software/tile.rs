//! The text of a tile: products in registers, for a workgroup that is one subgroup of 8 lanes.
//!
//! A tile is `rows` rows that stay by 32 columns that pass by: a lane has the columns 4 · lane to
//! 4 · lane + 3, and c<i>_<j> is row i at its column j. What is read comes as words of `width` floats;
//! an element of another lane is one shuffle.

use crate::kernels::gemm::pairs::LANES;
use crate::kernels::gemm::wgsl::{both, each};

/// Columns of a lane.
pub const ACROSS: u32 = 4;
/// Columns of a tile.
pub const COLUMNS: u32 = LANES * ACROSS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    pub rows: u32,
    /// Floats of a word: 2, 4 or 8.
    pub width: u32,
    /// Words that a lane holds of a row of D.
    pub words: u32,
}

/// Rows in memory: the array of words, and what its places are called.
#[derive(Clone, Copy)]
pub struct Source {
    pub array: &'static str,
    pub place: &'static str,
}

impl Tile {
    /// Lanes hold a row of rows / 8 of these.
    pub fn groups(self) -> u32 {
        self.rows / LANES
    }

    fn floats(self) -> u32 {
        self.width * self.words
    }

    fn word_type(self) -> &'static str {
        match self.width {
            2 => "u64",
            4 => "vec2<u64>",
            _ => "vec4<u64>",
        }
    }

    /// A binding as words.
    pub fn binding(self, name: &str, binding: u32, access: &str) -> String {
        let of = self.word_type();
        format!("@group(0) @binding({binding}) var<storage, {access}> {name}_words: array<{of}>;\n")
    }

    /// Float `e` of a word.
    fn float(self, word: &str, e: u32) -> String {
        let half = ["first", "second"][(e % 2) as usize];
        match self.width {
            2 => format!("{half}({word})"),
            _ => format!("{half}({word}.{})", ["x", "y", "z", "w"][(e / 2) as usize]),
        }
    }

    /// A word of floats.
    fn word(self, float: impl Fn(u32) -> String) -> String {
        let halves: Vec<String> =
            (0..self.width / 2).map(|h| format!("word({}, {})", float(2 * h), float(2 * h + 1))).collect();
        match self.width {
            2 => halves[0].clone(),
            _ => format!("{}({})", self.word_type(), halves.join(", ")),
        }
    }

    /// s + a · b of words, and o + w · v.
    pub fn of_words(self) -> String {
        let terms = each(self.width, |e| {
            format!("  sum = fma({}, {}, sum);\n", self.float("a", e), self.float("b", e))
        });
        let sums = self.word(|e| format!("fma(w, {}, {})", self.float("v", e), self.float("o", e)));
        format!(
            "alias Word = {};
fn dot_of(a: Word, b: Word, s: f32) -> f32 {{
  var sum = s;
{terms}  return sum;
}}
fn weighed(w: f32, v: Word, o: Word) -> Word {{ return {sums}; }}
",
            self.word_type()
        )
    }

    /// A line for each group of rows; its lane has row `lane + 8 · g`.
    pub fn each_group(self, line: impl Fn(u32) -> String) -> String {
        each(self.groups(), line)
    }

    /// A line for each row, and what its lane of `packed`<g> holds.
    pub fn each_row(self, packed: &str, line: impl Fn(u32, String) -> String) -> String {
        each(self.rows, |i| line(i, format!("subgroupBroadcast({packed}{}, {}u)", i / LANES, i % LANES)))
    }

    /// A line for each row and column of a lane.
    pub fn each_sum(self, line: impl Fn(u32, u32) -> String) -> String {
        both(self.rows, ACROSS, line)
    }

    /// `packed`<g> of each row's `value`<i>, taken over all lanes by `fold`_max or `fold`_sum.
    pub fn over_lanes(self, fold: &str, value: &str, packed: &str) -> String {
        self.each_group(|g| {
            let of = |i: u32| format!("{value}{}", g * LANES + i);
            let by = |a: String, b: String, bit: u32| format!("fold_{fold}({a}, {b}, lane, {bit}u)");
            let two = |i: u32| by(of(i), of(i + 1), 1);
            let four = |i: u32| by(two(i), two(i + 2), 2);
            format!("    let {packed}{g} = {};\n", by(four(0), four(4), 4))
        })
    }

    /// Names where a lane's rows start, one a group: `at` is the element where row `row` does.
    pub fn rows_at(self, place: &str, row: &str, at: impl Fn(&str) -> String) -> String {
        let width = self.width;
        self.each_group(|g| {
            let row = row.replace("GROUP", &format!("{}u", g * LANES));
            format!("    let {place}_row{g} = ({}) / {width}u;\n", at(&row))
        })
    }

    /// The same for the rows that its columns are.
    pub fn columns_at(self, place: &str, row: &str, at: impl Fn(&str) -> String) -> String {
        let width = self.width;
        each(ACROSS, |j| {
            let row = row.replace("COLUMN", &format!("{j}u"));
            format!("    let {place}_column{j} = ({}) / {width}u;\n", at(&row))
        })
    }

    /// `sums`<i>_<j> = Σ a_i · b_j over D.
    pub fn dots(self, sums: &str, a: Source, b: Source) -> String {
        let width = self.width;
        let load = |to: String, from: Source, at: String, part: &str| {
            let floats = each(width, |e| format!("        let {to}_{e} = {};\n", self.float(part, e)));
            format!("        let {part} = {}[{at} + d];\n{floats}", from.array)
        };
        let loads = self
            .each_group(|g| load(format!("y{g}"), a, format!("{}_row{g}", a.place), &format!("x{g}")))
            + &each(ACROSS, |j| load(format!("v{j}"), b, format!("{}_column{j}", b.place), &format!("z{j}")));
        let terms = both(self.rows, width, |i, e| {
            format!("        let u{i}_{e} = subgroupBroadcast(y{}_{e}, {}u);\n", i / LANES, i % LANES)
                + &each(ACROSS, |j| {
                    format!("        {sums}{i}_{j} = fma(u{i}_{e}, v{j}_{e}, {sums}{i}_{j});\n")
                })
        });
        let zeros = self.each_sum(|i, j| format!("    var {sums}{i}_{j} = 0.0;\n"));
        format!("{zeros}    for (var d = 0u; d < words; d++) {{\n{loads}{terms}    }}\n")
    }

    /// Sets the sums over tiles to 0.
    pub fn zeros(self, sums: &str) -> String {
        both(self.rows, self.floats(), |i, e| format!("  var {sums}{i}_{e} = 0.0;\n"))
    }

    /// Adds to the sums over tiles, for each of `products` = (sums, weights, what they weigh): Σ over the
    /// columns of weights<i>_<j> times the column's row. `row` is where column COLUMN of lane `l` starts,
    /// in words; `seen` is appended for every float that is read.
    pub fn weigh(
        self,
        products: &[(&str, &str, Source)],
        count: &str,
        row: impl Fn(&str) -> String,
        seen: impl Fn(&str) -> String,
    ) -> String {
        let width = self.width;
        let mut body = each(ACROSS, |j| {
            let row = row(&format!("{j}u"));
            format!("        let place{j} = ({row}) / {width}u;\n")
        });
        for (p, (_, _, from)) in products.iter().enumerate() {
            body += &both(ACROSS, self.words, |j, n| {
                let part = format!("x{p}_{j}_{n}");
                let at = format!("{} + place{j} + min(lane + {}u, words - 1u)", from.place, n * LANES);
                let floats = each(width, |e| {
                    let name = format!("v{p}_{j}_{}", n * width + e);
                    format!("        let {name} = {};\n{}", self.float(&part, e), seen(&name))
                });
                format!("        let {part} = {}[{at}];\n{floats}", from.array)
            });
        }
        for (p, (sums, weights, _)) in products.iter().enumerate() {
            body += &both(self.rows, ACROSS, |i, j| {
                format!("        let u{p}_{i}_{j} = subgroupShuffle({weights}{i}_{j}, l);\n")
                    + &each(self.floats(), |e| {
                        format!("        {sums}{i}_{e} = fma(u{p}_{i}_{j}, v{p}_{j}_{e}, {sums}{i}_{e});\n")
                    })
            });
        }
        format!(
            "    let steps = ({count} + {}u) / {ACROSS}u;\n    for (var l = 0u; l < steps; l++) {{\n{body}    }}\n",
            ACROSS - 1
        )
    }

    /// Stores `factor` times the sums over tiles where `live` says so of a row; adds what is there where
    /// `adds`. `at` is the element where row i starts.
    pub fn store(
        self,
        sums: &str,
        array: &str,
        factor: impl Fn(u32) -> String,
        live: impl Fn(u32) -> String,
        adds: Option<&str>,
        at: impl Fn(u32) -> String,
    ) -> String {
        let width = self.width;
        both(self.rows, self.words, |i, n| {
            let of = |e: u32| format!("{sums}{i}_{}", n * width + e);
            let scaled = each(width, |e| format!("    {0} *= {1};\n", of(e), factor(i)));
            let old = adds.map_or(String::new(), |adds| {
                let adding = each(width, |e| format!("      {} += {};\n", of(e), self.float("old", e)));
                format!("    if {adds} {{\n      let old = {array}[at];\n{adding}    }}\n")
            });
            format!(
                "{scaled}  if {live} && lane + {word}u < words {{
    let at = ({at}) / {width}u + lane + {word}u;
{old}    {array}[at] = {value};
  }}
",
                live = live(i),
                word = n * LANES,
                at = at(i),
                value = self.word(of),
            )
        })
    }

    /// Sets the sums over tiles to what is stored.
    pub fn load(
        self,
        sums: &str,
        array: &str,
        live: impl Fn(u32) -> String,
        at: impl Fn(u32) -> String,
    ) -> String {
        let width = self.width;
        both(self.rows, self.words, |i, n| {
            let floats =
                each(width, |e| format!("      {sums}{i}_{} = {};\n", n * width + e, self.float("old", e)));
            format!(
                "    if {} && lane + {word}u < words {{
      let old = {array}[({}) / {width}u + lane + {word}u];
{floats}    }}
",
                live(i),
                at(i),
                word = n * LANES,
            )
        })
    }
}
