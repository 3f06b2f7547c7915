//! The product in WGSL, in two forms that sum alike where they share a shape's plan.
//!
//! Counted from the text, for f32 (nothing was timed on a GPU of silicon). A term of a tile is staged
//! once: FLOPs a byte of memory = 2 · height · width / (4 · (height + width)). Registers are the sums,
//! the factors of a term and some 16 for places; workgroups at once are what 65,536 registers and
//! 100 KiB of workgroup memory (an SM of NVIDIA's) hold.
//!
//! | form        | C a workgroup | FLOPs a byte | fma a shared read | registers | workgroup memory | at once |
//! |-------------|---------------|--------------|-------------------|-----------|------------------|---------|
//! | tile 8 × 8  | 128 × 128     | 32           | 16                | 96        | 8.3 KiB          | 2 (registers) |
//! | tile 4 × 4  | 64 × 64       | 16           | 8                 | 40        | 8.5 KiB          | 6 (registers) |
//! | tile 1 × 4  | 16 × 64       | 6.4          | 2                 | 25        | 5.3 KiB          | 8 (threads) |
//! | tile 4 × 1  | 64 × 16       | 6.4          | 2                 | 25        | 5.3 KiB          | 8 (threads) |
//! | dots, r rows| r × 4         | r / 2 of B   | none              | 5 r + 24  | r KiB            | memory binds |
//!
//! A shared read is of a vector of four where a side has as many. The lanes of a row of 16 read 16 vectors side by side,
//! in two turns of the 32 banks; those of a column read one, which is handed to all.
//!
//! With two segments the sums are settled, begun anew in the same registers, and added to what was
//! settled: a tile of C is written twice and read once by the invocation that wrote it, and its bits are
//! those of two launches.

use crate::kernel::Params;

/// How the work is laid out over invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 16 × 16 invocations hold `rows` × `columns` each, over blocks of A and B in shared memory.
    Tile { rows: u32, columns: u32 },
    /// The lanes share the terms of a few dot products: few rows against a weight that lies along k.
    Dots { rows: u32 },
}

/// Invocations of a side of a tile.
pub const SIDE: u32 = 16;
/// Columns of C that a workgroup of dot products makes.
const DOT_COLUMNS: u32 = 4;

impl Form {
    const ALL: &[Form] = &[
        Form::Tile { rows: 1, columns: 4 },
        Form::Tile { rows: 4, columns: 1 },
        Form::Tile { rows: 4, columns: 4 },
        Form::Tile { rows: 8, columns: 8 },
        Form::Dots { rows: 1 },
        Form::Dots { rows: 4 },
        Form::Dots { rows: 8 },
    ];

    /// Every form of one segment or two: the few rows of dot products take theirs one after another.
    pub fn all(two: bool) -> Vec<Form> {
        let suits = |form: &&Form| !two || !matches!(form, Form::Dots { .. });
        Form::ALL.iter().filter(suits).copied().collect()
    }

    pub fn params(self) -> Params {
        match self {
            Form::Tile { rows, columns } => [0, rows, columns, 0],
            Form::Dots { rows } => [1, rows, DOT_COLUMNS, 0],
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Form::Tile { .. } => SIDE * SIDE,
            Form::Dots { .. } => 64,
        }
    }

    /// Rows and columns of C that a workgroup makes.
    pub fn block(self) -> [usize; 2] {
        let [rows, columns] = match self {
            Form::Tile { rows, columns } => [rows * SIDE, columns * SIDE],
            Form::Dots { rows } => [rows, DOT_COLUMNS],
        };
        [rows as usize, columns as usize]
    }
}

/// The body of one form. Sums are unrolled into scalars `c<i>_<j>`. Of two segments the first is
/// settled as by itself, and the second as a product that is added to it.
pub fn body(params: Params, bias: bool, two: bool) -> String {
    let [form, rows, columns, _] = params;
    let add_bias = if bias { "v += load_bias(column);" } else { "" };
    let settle = |name: &str, alpha: &str, add: &str| {
        format!(
            "fn {name}(z: u32, row: u32, column: u32, sum: f32) {{
  if row >= p.m || column >= p.n {{ return; }}
  let at = z * p.c_batch + row * p.c_row + column;
  var v = p.{alpha} * sum;
  {add}
  store_c(at, v);
}}
"
        )
    };
    let add_first = format!("{add_bias} if p.accumulate == 1u {{ v += load_c(at); }}");
    let mut settles = settle("settle", "alpha", &add_first);
    if two {
        settles += &settle("settle_second", "alpha2", "v += load_c(at);");
    }
    let place = format!(
        "  let z = group / (p.row_blocks * p.column_blocks);
  let block = group % (p.row_blocks * p.column_blocks);
  let row = block / p.column_blocks * {}u;
  let column = block % p.column_blocks * {}u;
",
        if form == 0 { rows * SIDE } else { rows },
        if form == 0 { columns * SIDE } else { columns },
    );
    settles
        + &match form {
            0 => tile(rows, columns, &place, two),
            _ => dots(rows, columns, &place),
        }
}

pub fn each(n: u32, line: impl Fn(u32) -> String) -> String {
    (0..n).map(line).collect()
}

pub fn both(rows: u32, columns: u32, line: impl Fn(u32, u32) -> String) -> String {
    each(rows, |i| each(columns, |j| line(i, j)))
}

/// Sets every sum to 0, the first time with `var `.
pub fn zeros(sums: &str, rows: u32, columns: u32, var: &str) -> String {
    both(rows, columns, |i, j| format!("  {var}{sums}{i}_{j} = 0.0;\n"))
}

/// What an invocation has along a side of its tile: one element, or quads of four, which stand a workgroup's
/// invocations apart, so that neighbours read and write neighbours.
#[derive(Clone, Copy)]
pub struct Along {
    count: u32,
}

impl Along {
    /// Elements of shared memory that stand together, as one vector where there are four.
    pub fn lanes(self) -> u32 {
        if self.count == 1 { 1 } else { 4 }
    }

    fn groups(self) -> u32 {
        self.count / self.lanes()
    }

    /// Of the block: as many vectors as it is long.
    pub fn vectors(self) -> u32 {
        self.count * SIDE / self.lanes()
    }

    /// From one term's vectors to the next one's: one more than a power of two, so that terms fall in other banks.
    pub fn stride(self) -> u32 {
        self.vectors() + 1
    }

    fn element(self) -> &'static str {
        if self.count == 1 { "f32" } else { "vec4<f32>" }
    }

    /// A vector of `value` at the places of vector `at`.
    pub fn gathered(self, at: &str, value: &dyn Fn(String) -> String) -> String {
        match self.lanes() {
            1 => value(at.to_string()),
            lanes => {
                let parts: Vec<String> =
                    (0..lanes).map(|l| value(format!("{at} * {lanes}u + {l}u"))).collect();
                format!("vec4<f32>({})", parts.join(", "))
            }
        }
    }

    /// Where, from the block's start, element `n` of the invocation `own` lies.
    fn place(self, own: &str, n: u32) -> String {
        match self.lanes() {
            1 => own.to_string(),
            lanes => format!("{own} * {lanes}u + {}u", n / lanes * lanes * SIDE + n % lanes),
        }
    }
}

/// Blocks of both factors in shared memory, for 16 × 16 invocations of `rows` × `columns` each. Factors are read from
/// there by vectors of four, and so are sums kept: along columns or, where there is one, along rows.
pub struct Stage {
    pub left: Along,
    pub right: Along,
    /// Terms that are staged at once: 16 KiB of shared memory are promised everywhere.
    pub depth: u32,
}

impl Stage {
    pub fn new(rows: u32, columns: u32) -> Stage {
        let depth = if rows + columns > 8 { 8 } else { 16 };
        Stage { left: Along { count: rows }, right: Along { count: columns }, depth }
    }

    /// The kernel: `place` finds its block, `fill` stages the terms from k on, zeros past the ends, and
    /// `settle`, a call's name and first arguments, is given row, column and sum.
    pub fn kernel(&self, place: &str, terms: &str, fill: &str, settle: &str) -> String {
        self.summing(place, &(self.sum(terms, fill) + &self.stores(settle)))
    }

    /// Sums run along columns, else along rows.
    fn along_columns(&self) -> bool {
        self.right.lanes() > 1
    }

    /// Every vector of sums, by what stands for its row or rows and its column or columns.
    fn sums(&self, line: impl Fn(u32, u32) -> String) -> String {
        match self.along_columns() {
            true => both(self.left.count, self.right.groups(), line),
            false => both(self.left.groups(), self.right.count, line),
        }
    }

    /// Sets every sum to 0, the first time with `var `.
    fn zeros(&self, var: &str) -> String {
        self.sums(|i, j| format!("  {var}c{i}_{j} = vec4<f32>();\n"))
    }

    /// The kernel around its sums.
    fn summing(&self, place: &str, sums: &str) -> String {
        let &Stage { left, right, depth } = self;
        format!(
            "var<workgroup> left: array<{}, {}>;
var<workgroup> right: array<{}, {}>;
fn kernel(group: u32, lane: u32) {{
{place}  let y = lane / {SIDE}u;
  let x = lane % {SIDE}u;
{zeros}{sums}}}
",
            left.element(),
            depth * left.stride(),
            right.element(),
            depth * right.stride(),
            zeros = self.zeros("var "),
        )
    }

    /// Gives every sum to `settle`.
    fn stores(&self, settle: &str) -> String {
        let &Stage { left, right, .. } = self;
        let part = |n: u32| ["x", "y", "z", "w"][n as usize % 4];
        both(left.count, right.count, |i, j| {
            let sum = match self.along_columns() {
                true => format!("c{i}_{}.{}", j / 4, part(j)),
                false => format!("c{}_{j}.{}", i / 4, part(i)),
            };
            format!("  {settle}, row + {}, column + {}, {sum});\n", left.place("y", i), right.place("x", j))
        })
    }

    /// Adds `terms` terms to the sums.
    fn sum(&self, terms: &str, fill: &str) -> String {
        let &Stage { left, right, depth } = self;
        let load = |name: &str, from: &str, along: Along, own: &str| {
            each(along.groups(), |g| {
                let stride = along.stride();
                format!("        let {name}{g} = {from}[t * {stride}u + {own} + {}u];\n", g * SIDE)
            })
        };
        // An element of a side that is no vector in the sums.
        let element = |name: &str, along: Along, n: u32| match along.lanes() {
            1 => format!("{name}{n}"),
            _ => format!("{name}{}.{}", n / 4, ["x", "y", "z", "w"][n as usize % 4]),
        };
        let products = self.sums(|i, j| {
            let (u, v) = match self.along_columns() {
                true => (format!("vec4<f32>({})", element("u", left, i)), format!("v{j}")),
                false => (format!("u{i}"), format!("vec4<f32>({})", element("v", right, j))),
            };
            format!("        c{i}_{j} = fma({u}, {v}, c{i}_{j});\n")
        });
        format!(
            "  {{
    let terms = {terms};
    for (var k = 0u; k < terms; k += {depth}u) {{
{fill}      workgroupBarrier();
      for (var t = 0u; t < {depth}u; t++) {{
{us}{vs}{products}      }}
      workgroupBarrier();
    }}
  }}
",
            us = load("u", "left", left, "y"),
            vs = load("v", "right", right, "x"),
        )
    }
}

/// Blocks are staged along whichever side lies together in memory.
fn tile(rows: u32, columns: u32, place: &str, two: bool) -> String {
    let stage = Stage::new(rows, columns);
    let Stage { left, right, depth } = stage;
    let numbers: &[&str] = if two { &["", "2"] } else { &[""] };
    let readers: String = numbers
        .iter()
        .map(|number| {
            let (batch_a, batch_b) = match *number {
                "" => ("z * p.a_batch + ", "z * p.b_batch + "),
                _ => ("", ""),
            };
            format!(
                "fn staged_a{number}(z: u32, row: u32, k: u32) -> f32 {{
  if row >= p.m || k >= p.k{number} {{ return 0.0; }}
  return load_a{number}({batch_a}row * p.a{number}_row + k * p.a{number}_column);
}}
fn staged_b{number}(z: u32, k: u32, column: u32) -> f32 {{
  if column >= p.n || k >= p.k{number} {{ return 0.0; }}
  return load_b{number}({batch_b}k * p.b{number}_row + column * p.b{number}_column);
}}
"
            )
        })
        .collect();
    let fill = |name: &str, along: Along, together: String, value: &dyn Fn(String) -> String| {
        let (vectors, stride) = (along.vectors(), along.stride());
        format!(
            "    for (var e = lane; e < {}u; e += THREADS) {{
      let t = select(e / {vectors}u, e % {depth}u, {together});
      let i = select(e % {vectors}u, e / {depth}u, {together});
      {name}[t * {stride}u + i] = {};
    }}
",
            depth * vectors,
            along.gathered("i", value),
        )
    };
    let sum = |number: &str| {
        let of_left = |at: String| format!("staged_a{number}(z, row + {at}, k + t)");
        let of_right = |at: String| format!("staged_b{number}(z, k + t, column + {at})");
        let fills = fill("left", left, format!("p.a{number}_column == 1u"), &of_left)
            + &fill("right", right, format!("p.b{number}_row == 1u"), &of_right);
        stage.sum(&format!("p.k{number}"), &fills)
    };
    let rest = match two {
        true => stage.zeros("") + &sum("2") + &stage.stores("settle_second(z"),
        false => String::new(),
    };
    readers + &stage.summing(place, &(sum("") + &stage.stores("settle(z") + &rest))
}

/// Each lane sums the terms lane, lane + 64, …; then the lanes' sums are added in pairs.
fn dots(rows: u32, columns: u32, place: &str) -> String {
    let a_places =
        each(rows, |i| format!("  let a{i} = z * p.a_batch + min(row + {i}u, p.m - 1u) * p.a_row;\n"));
    let b_places = each(columns, |j| {
        format!("  let b{j} = z * p.b_batch + min(column + {j}u, p.n - 1u) * p.b_column;\n")
    });
    let zeros = zeros("c", rows, columns, "var ");
    let loads = each(columns, |j| format!("    let v{j} = load_b(b{j} + k * p.b_row);\n"));
    let products = each(rows, |i| {
        format!("    let u{i} = load_a(a{i} + k * p.a_column);\n")
            + &each(columns, |j| format!("    c{i}_{j} = fma(u{i}, v{j}, c{i}_{j});\n"))
    });
    let share =
        both(rows, columns, |i, j| format!("  sums[{}u * THREADS + lane] = c{i}_{j};\n", i * columns + j));
    let outputs = rows * columns;
    format!(
        "var<workgroup> sums: array<f32, {size}>;
fn kernel(group: u32, lane: u32) {{
{place}{a_places}{b_places}{zeros}  for (var k = lane; k < p.k; k += THREADS) {{
{loads}{products}  }}
{share}  workgroupBarrier();
  for (var step = THREADS / 2u; step > 0u; step /= 2u) {{
    for (var e = lane; e < {outputs}u * step; e += THREADS) {{
      let at = e / step * THREADS + e % step;
      sums[at] += sums[at + step];
    }}
    workgroupBarrier();
  }}
  if lane < {outputs}u {{
    settle(z, row + lane / {columns}u, column + lane % {columns}u, sums[lane * THREADS]);
  }}
}}
",
        size = outputs * 64,
    )
}
