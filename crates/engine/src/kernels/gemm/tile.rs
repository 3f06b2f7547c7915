//! A tile of a product in a workgroup's registers, over blocks of both factors in shared memory: the loop that all
//! tiled products share, whatever the source of their factors (stage.rs; `conv` gathers one).
//!
//! An invocation holds groups of four lines of its tile, at a distance that makes neighbouring invocations read and
//! write contiguous elements. A block is stored by terms, each a row of vectors of four lines, padded by one vector, so
//! that consecutive terms are in different banks. Sums run along columns, in ascending order of the terms, by fma from
//! 0, so every tile gives the same bits. A tile in f16 stages factors rounded to f16 (in_f16) and widens them when it
//! reads them, which is exact; so its products are exact, and only sums are rounded, as in f32.

use super::emit::{COMPONENTS, emit_each, emit_grid};

/// Rows × columns of C per workgroup, terms per stage, and the rows × columns per invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    pub rows: u32,
    pub columns: u32,
    pub depth: u32,
    pub lane: [u32; 2],
    /// Whether blocks are staged in f16.
    pub f16: bool,
}

/// A tile of `rows` × `columns` × `depth`, with `lane` elements per invocation.
const fn make_tile(rows: u32, columns: u32, depth: u32, lane: [u32; 2]) -> Tile {
    Tile { rows, columns, depth, lane, f16: false }
}

impl Tile {
    pub const NARROW: Tile = make_tile(64, 16, 16, [4, 4]);
    pub const FLAT: Tile = make_tile(16, 64, 16, [4, 4]);
    pub const SMALL: Tile = make_tile(32, 32, 16, [4, 4]);
    pub const MIDDLE: Tile = make_tile(64, 64, 16, [4, 4]);
    pub const LARGE: Tile = make_tile(128, 128, 8, [8, 8]);

    pub const ALL: &[Tile] = &[
        Tile::NARROW,
        Tile::FLAT,
        Tile::SMALL,
        Tile::MIDDLE,
        Tile::LARGE,
        make_tile(64, 64, 16, [8, 8]),
        make_tile(64, 32, 16, [4, 4]),
        make_tile(32, 64, 16, [4, 4]),
        make_tile(128, 64, 16, [8, 4]),
    ];

    /// Tiles that stage f16. Most have 8 × 8 elements per invocation, since a factor is then widened once for eight
    /// products.
    pub const IN_F16: &[Tile] = &[
        Tile { f16: true, ..Tile::MIDDLE },
        Tile { f16: true, ..make_tile(64, 64, 16, [8, 8]) },
        Tile { f16: true, ..make_tile(128, 128, 16, [8, 8]) },
    ];

    /// The tile as part of a pipeline's key.
    pub fn to_words(self) -> [u32; 3] {
        [self.rows << 16 | self.columns, self.depth, self.lane[0] << 16 | self.lane[1]]
    }

    /// The tile of a pipeline's key.
    pub fn from_words([sides, depth, lane]: [u32; 3]) -> Tile {
        let halves = |word: u32| [word >> 16, word & 0xffff];
        let [rows, columns] = halves(sides);
        Tile { rows, columns, depth, lane: halves(lane), f16: false }
    }

    /// The default tile for `matrices` products of `m` × `n`: large tiles read least, as long as they still fill the
    /// GPU.
    pub fn choose(matrices: usize, m: usize, n: usize) -> Tile {
        let tiles = |side: usize| matrices * m.div_ceil(side) * n.div_ceil(side);
        match (m, n) {
            (..=16, _) => Tile::FLAT,
            (_, ..=16) => Tile::NARROW,
            _ if tiles(128) >= 64 => Tile::LARGE,
            _ if tiles(64) >= 16 => Tile::MIDDLE,
            _ => Tile::SMALL,
        }
    }

    /// The default tile in f16.
    pub fn choose_f16(matrices: usize, m: usize, n: usize) -> Tile {
        let large = matrices * m.div_ceil(128) * n.div_ceil(128) >= 64;
        Tile::IN_F16[if large { 2 } else { 0 }]
    }

    /// Whether at least half of a tile is inside a product of `m` × `n`.
    pub fn is_suitable(&self, m: usize, n: usize) -> bool {
        let fits = |size: usize, side: u32| match side {
            16 => size <= 16,
            side => size.next_multiple_of(16) * 2 > side as usize,
        };
        fits(m, self.rows) && fits(n, self.columns)
    }

    pub fn threads(self) -> u32 {
        self.rows / self.lane[0] * (self.columns / self.lane[1])
    }

    /// Bytes of workgroup memory.
    #[cfg(test)]
    pub fn shared_bytes(self) -> u32 {
        let vector = if self.f16 { 8 } else { 16 };
        vector * self.depth * (self.left_block().stride() + self.right_block().stride())
    }

    /// The block of A.
    pub fn left_block(self) -> Block {
        Block { name: "left", lines: self.rows, depth: self.depth, threads: self.threads(), from: 0 }
    }

    /// The block of B. If patches of both leave invocations idle, other invocations stage it than A.
    pub fn right_block(self) -> Block {
        let left = self.left_block();
        let block = Block { name: "right", lines: self.columns, ..left };
        let from = if left.patches() + block.patches() <= self.threads() { left.patches() } else { 0 };
        Block { from, ..block }
    }

    /// The WGSL kernel: `position` finds row and column of the tile; `sums` computes and stores it.
    pub fn emit_kernel(self, position: &str, sums: &str) -> String {
        let (left, right) = (self.left_block(), self.right_block());
        let element = if self.f16 { "f16" } else { "f32" };
        format!(
            "var<workgroup> left: array<vec4<{element}>, {}>;
var<workgroup> right: array<vec4<{element}>, {}>;
fn kernel(group: u32, lane: u32) {{
{position}  let y = lane / {across}u;
  let x = lane % {across}u;
{zeros}{sums}}}
",
            left.depth * left.stride(),
            right.depth * right.stride(),
            across = self.columns / self.lane[1],
            zeros = self.emit_zeros("var "),
        )
    }

    /// Sets every sum to 0; `var` is `var ` for the first time.
    pub fn emit_zeros(self, var: &str) -> String {
        self.emit_sums(|i, j| format!("  {var}c{i}_{j} = vec4<f32>();\n"))
    }

    /// A line for each vector of sums, by its row and its group of four columns.
    fn emit_sums(self, line: impl Fn(u32, u32) -> String) -> String {
        emit_grid(self.lane[0], self.lane[1] / 4, line)
    }

    /// Adds `terms` terms to the sums, from blocks that `left` and `right` stage.
    pub fn emit_sum(self, terms: &str, left: &StagingCode, right: &StagingCode) -> String {
        let depth = self.depth;
        let load = |name: &str, block: Block, count: u32, own: &str, distance: u32| {
            let (from, stride) = (block.name, block.stride());
            emit_each(count / 4, |g| {
                let vector = format!("{from}[t * {stride}u + {own} + {}u]", g * distance);
                match self.f16 {
                    true => format!("        let {name}{g} = vec4<f32>({vector});\n"),
                    false => format!("        let {name}{g} = {vector};\n"),
                }
            })
        };
        let [rows, columns] = self.lane;
        let products = self.emit_sums(|i, j| {
            let part = COMPONENTS[i as usize % 4];
            format!("        c{i}_{j} = fma(vec4<f32>(u{}.{part}), v{j}, c{i}_{j});\n", i / 4)
        });
        format!(
            "  {{
    let terms = {terms};
{prologue}    for (var k = 0u; k < terms; k += {depth}u) {{
{body}      workgroupBarrier();
      for (var t = 0u; t < {depth}u; t++) {{
{us}{vs}{products}      }}
      workgroupBarrier();
    }}
  }}
",
            prologue = left.prologue.clone() + &right.prologue,
            body = left.body.clone() + &right.body,
            us = load("u", self.left_block(), rows, "y", self.rows / rows),
            vs = load("v", self.right_block(), columns, "x", self.columns / columns),
        )
    }

    /// Calls `epilogue` (a function name and its first arguments) for each sum, with its row and column.
    pub fn emit_stores(self, epilogue: &str) -> String {
        let [rows, columns] = self.lane;
        let offset =
            |own: &str, n: u32, distance: u32| format!("{own} * 4u + {}u", n / 4 * 4 * distance + n % 4);
        emit_grid(rows, columns, |i, j| {
            format!(
                "  {epilogue}, row + {}, column + {}, c{i}_{}.{});\n",
                offset("y", i, self.rows / rows),
                offset("x", j, self.columns / columns),
                j / 4,
                COMPONENTS[j as usize % 4]
            )
        })
    }
}

/// A factor's block in shared memory; `threads` invocations from `from` on stage it.
#[derive(Clone, Copy)]
pub struct Block {
    pub name: &'static str,
    pub lines: u32,
    pub depth: u32,
    pub threads: u32,
    pub from: u32,
}

impl Block {
    /// Vectors per term.
    pub fn vectors(self) -> u32 {
        self.lines / 4
    }

    /// The stride from term to term, in vectors.
    pub fn stride(self) -> u32 {
        self.vectors() + 1
    }

    /// Patches of four lines by four terms.
    pub fn patches(self) -> u32 {
        self.vectors() * self.depth / 4
    }
}

/// WGSL that stages a block: statements before the loop over the terms, and statements that load the terms from `k` up
/// to `terms`, with zeros past the end.
pub struct StagingCode {
    pub prologue: String,
    pub body: String,
}
