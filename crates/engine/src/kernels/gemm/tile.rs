//! A tile of a product in a workgroup's registers, over blocks of both factors in shared memory: the loop
//! that all products by tiles share, whatever their factors are made of (stage.rs; `conv` gathers one).
//!
//! An invocation holds lines of its tile by fours, each four as far from its next as the invocations of a
//! side reach, so that neighbours read and write neighbours. A block lies by terms, each a row of vectors of
//! four lines, and a vector longer than it is: so a term's vectors fall in other banks than the next one's.
//! Sums run along columns, each in ascending order of its terms, by fma from 0: every tile gives the same bits.
//! A tile in f16 stages what was rounded to it (in_f16), and widens it again as it is read, which is exact: so its
//! products are exact, too, and only its sums are rounded, as those of f32 are.

use super::emit::{PARTS, both, each};

/// Rows × columns of C that a workgroup makes, terms that are staged at once, and the rows × columns of an
/// invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub rows: u32,
    pub columns: u32,
    pub depth: u32,
    pub lane: [u32; 2],
    /// Whether blocks are staged in f16.
    pub f16: bool,
}

/// `rows` × `columns` × `depth`, by `lane` an invocation.
const fn tile(rows: u32, columns: u32, depth: u32, lane: [u32; 2]) -> Tile {
    Tile { rows, columns, depth, lane, f16: false }
}

impl Tile {
    pub const NARROW: Tile = tile(64, 16, 16, [4, 4]);
    pub const FLAT: Tile = tile(16, 64, 16, [4, 4]);
    pub const SMALL: Tile = tile(32, 32, 16, [4, 4]);
    pub const MIDDLE: Tile = tile(64, 64, 16, [4, 4]);
    pub const LARGE: Tile = tile(128, 128, 8, [8, 8]);

    pub const ALL: &[Tile] = &[
        Tile::NARROW,
        Tile::FLAT,
        Tile::SMALL,
        Tile::MIDDLE,
        Tile::LARGE,
        tile(64, 64, 16, [8, 8]),
        tile(64, 32, 16, [4, 4]),
        tile(32, 64, 16, [4, 4]),
        tile(128, 64, 16, [8, 4]),
    ];

    /// Those that stage f16. Most have 8 × 8 an invocation, since a factor is widened once for eight products then.
    pub const IN_F16: &[Tile] = &[
        Tile { f16: true, ..Tile::MIDDLE },
        Tile { f16: true, ..tile(64, 64, 16, [8, 8]) },
        Tile { f16: true, ..tile(128, 128, 16, [8, 8]) },
    ];

    /// What stands for it in a pipeline's key.
    pub fn words(self) -> [u32; 3] {
        [self.rows << 16 | self.columns, self.depth, self.lane[0] << 16 | self.lane[1]]
    }

    /// The tile of a pipeline's key.
    pub fn of([sides, depth, lane]: [u32; 3]) -> Tile {
        let halves = |word: u32| [word >> 16, word & 0xffff];
        let [rows, columns] = halves(sides);
        Tile { rows, columns, depth, lane: halves(lane), f16: false }
    }

    /// Large tiles read least, as long as they still fill the GPU: the tile by shape, for `matrices` products.
    pub fn by_shape(matrices: usize, m: usize, n: usize) -> Tile {
        let tiles = |side: usize| matrices * m.div_ceil(side) * n.div_ceil(side);
        match (m, n) {
            (..=16, _) => Tile::FLAT,
            (_, ..=16) => Tile::NARROW,
            _ if tiles(128) >= 64 => Tile::LARGE,
            _ if tiles(64) >= 16 => Tile::MIDDLE,
            _ => Tile::SMALL,
        }
    }

    /// The tile in f16 by shape.
    pub fn in_f16(matrices: usize, m: usize, n: usize) -> Tile {
        let large = matrices * m.div_ceil(128) * n.div_ceil(128) >= 64;
        Tile::IN_F16[if large { 2 } else { 0 }]
    }

    /// Whether less than half of a tile would lie outside of a product of `m` × `n`.
    pub fn suits(&self, m: usize, n: usize) -> bool {
        let fits = |size: usize, side: u32| match side {
            16 => size <= 16,
            side => size.next_multiple_of(16) * 2 > side as usize,
        };
        fits(m, self.rows) && fits(n, self.columns)
    }

    pub fn threads(self) -> u32 {
        self.rows / self.lane[0] * (self.columns / self.lane[1])
    }

    /// Of workgroup memory.
    #[cfg(test)]
    pub fn shared_bytes(self) -> u32 {
        let vector = if self.f16 { 8 } else { 16 };
        vector * self.depth * (self.left().stride() + self.right().stride())
    }

    /// The block of A.
    pub fn left(self) -> Block {
        Block { name: "left", lines: self.rows, depth: self.depth, threads: self.threads(), from: 0 }
    }

    /// The block of B. Where patches of both leave invocations over, others stage it than A's.
    pub fn right(self) -> Block {
        let left = self.left();
        let block = Block { name: "right", lines: self.columns, ..left };
        let from = if left.patches() + block.patches() <= self.threads() { left.patches() } else { 0 };
        Block { from, ..block }
    }

    /// The kernel: `place` finds row and column of the tile, `sums` fills it and gives it away.
    pub fn kernel(self, place: &str, sums: &str) -> String {
        let (left, right) = (self.left(), self.right());
        let element = if self.f16 { "f16" } else { "f32" };
        format!(
            "var<workgroup> left: array<vec4<{element}>, {}>;
var<workgroup> right: array<vec4<{element}>, {}>;
fn kernel(group: u32, lane: u32) {{
{place}  let y = lane / {across}u;
  let x = lane % {across}u;
{zeros}{sums}}}
",
            left.depth * left.stride(),
            right.depth * right.stride(),
            across = self.columns / self.lane[1],
            zeros = self.zeros("var "),
        )
    }

    /// Sets every sum to 0, the first time with `var `.
    pub fn zeros(self, var: &str) -> String {
        self.sums(|i, j| format!("  {var}c{i}_{j} = vec4<f32>();\n"))
    }

    /// Every vector of sums, by its row and its four columns.
    fn sums(self, line: impl Fn(u32, u32) -> String) -> String {
        both(self.lane[0], self.lane[1] / 4, line)
    }

    /// Adds `terms` terms to the sums, from blocks that `left` and `right` stage.
    pub fn sum(self, terms: &str, left: &Fill, right: &Fill) -> String {
        let depth = self.depth;
        let load = |name: &str, block: Block, count: u32, own: &str, apart: u32| {
            let (from, stride) = (block.name, block.stride());
            each(count / 4, |g| {
                let vector = format!("{from}[t * {stride}u + {own} + {}u]", g * apart);
                match self.f16 {
                    true => format!("        let {name}{g} = vec4<f32>({vector});\n"),
                    false => format!("        let {name}{g} = {vector};\n"),
                }
            })
        };
        let [rows, columns] = self.lane;
        let products = self.sums(|i, j| {
            let part = PARTS[i as usize % 4];
            format!("        c{i}_{j} = fma(vec4<f32>(u{}.{part}), v{j}, c{i}_{j});\n", i / 4)
        });
        format!(
            "  {{
    let terms = {terms};
{before}    for (var k = 0u; k < terms; k += {depth}u) {{
{within}      workgroupBarrier();
      for (var t = 0u; t < {depth}u; t++) {{
{us}{vs}{products}      }}
      workgroupBarrier();
    }}
  }}
",
            before = left.before.clone() + &right.before,
            within = left.within.clone() + &right.within,
            us = load("u", self.left(), rows, "y", self.rows / rows),
            vs = load("v", self.right(), columns, "x", self.columns / columns),
        )
    }

    /// Gives every sum to `epilogue`, a call's name and first arguments, with its row and column.
    pub fn stores(self, epilogue: &str) -> String {
        let [rows, columns] = self.lane;
        let place = |own: &str, n: u32, apart: u32| format!("{own} * 4u + {}u", n / 4 * 4 * apart + n % 4);
        both(rows, columns, |i, j| {
            format!(
                "  {epilogue}, row + {}, column + {}, c{i}_{}.{});\n",
                place("y", i, self.rows / rows),
                place("x", j, self.columns / columns),
                j / 4,
                PARTS[j as usize % 4]
            )
        })
    }
}

/// A factor's block in shared memory, and the invocations from the `from`-th on that stage it.
#[derive(Clone, Copy)]
pub struct Block {
    pub name: &'static str,
    pub lines: u32,
    pub depth: u32,
    pub threads: u32,
    pub from: u32,
}

impl Block {
    /// Vectors of a term.
    pub fn vectors(self) -> u32 {
        self.lines / 4
    }

    /// From one term's vectors to the next one's.
    pub fn stride(self) -> u32 {
        self.vectors() + 1
    }

    /// Squares of four lines by four terms.
    pub fn patches(self) -> u32 {
        self.vectors() * self.depth / 4
    }
}

/// How a block is staged: what stands before the loop over the terms, and what fills it from term `k` of
/// `terms` on, with zeros past the end.
pub struct Fill {
    pub before: String,
    pub within: String,
}
