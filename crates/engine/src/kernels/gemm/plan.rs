//! The plan of a product on a GPU, from its shape and strides; nothing here depends on a device.
//!
//! The choices that depend on the shape alone change the order of sums: few rows, and parts of K. All remaining
//! `candidates` give the same bits.

use smallvec::{SmallVec, smallvec};

use super::stage::Read;
use super::tile::Tile;
use super::{Gemm, Matrix, Precision, columns, dots, outer};
use crate::dtype::DType;
use crate::kernel::{Params, Range};

/// The access patterns of both factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccessPatterns {
    pub a: Read,
    pub b: Read,
}

impl AccessPatterns {
    pub const ELEMENTS: AccessPatterns = AccessPatterns { a: Read::Elements, b: Read::Elements };

    /// All combinations: x·Wᵀ, x·W and dᵀ·x by vectors; everything else by elements.
    pub const ALL: [AccessPatterns; 4] = [
        AccessPatterns::ELEMENTS,
        AccessPatterns { a: Read::Terms, b: Read::Terms },
        AccessPatterns { a: Read::Terms, b: Read::Lines },
        AccessPatterns { a: Read::Lines, b: Read::Lines },
    ];

    /// The index among all.
    pub fn index(self) -> u32 {
        AccessPatterns::ALL.iter().position(|reads| *reads == self).expect("one of those that there are")
            as u32
    }

    /// The combination at an index.
    pub fn from_index(number: u32) -> AccessPatterns {
        AccessPatterns::ALL[number as usize & 3]
    }

    /// The combinations for B stored as `b`, with a bias or a second segment if `more`: dᵀ·x has neither, and no half
    /// storage.
    pub fn list(b: DType, more: bool) -> impl Iterator<Item = AccessPatterns> {
        let count = if b == DType::F32 && !more { 4 } else { 3 };
        AccessPatterns::ALL.into_iter().take(count)
    }

    /// The combinations for products by a weight, x·Wᵀ and x·W.
    pub fn list_for_weights() -> impl Iterator<Item = AccessPatterns> {
        AccessPatterns::list(DType::F32, true)
    }

    /// The widest access patterns that sizes and strides allow.
    pub fn choose(g: &Gemm, a: &Matrix, b: &Matrix, more: bool) -> AccessPatterns {
        let read = |factor: &Matrix, line_step: usize, term_step: usize, lines: usize| {
            let fours = |step: usize| step.is_multiple_of(4);
            let starts = fours(factor.value.offset) && (g.batch == 1 || fours(factor.batch));
            match (term_step, line_step) {
                (1, _) if starts && fours(g.k) && fours(line_step) => Read::Terms,
                (_, 1) if starts && fours(lines) && fours(term_step) => Read::Lines,
                _ => Read::Elements,
            }
        };
        let reads = AccessPatterns { a: read(a, a.row, a.column, g.m), b: read(b, b.column, b.row, g.n) };
        match AccessPatterns::list(b.value.dtype, more).any(|listed| listed == reads) {
            true => reads,
            false => AccessPatterns::ELEMENTS,
        }
    }

    /// Whether they also apply to a part of the product, of these sizes and ranges.
    fn can_read(self, [m, n, k]: [usize; 3], a: &Range, b: &Range) -> bool {
        let can_read = |read: Read, lines: usize, range: &Range| match read {
            Read::Elements => true,
            Read::Terms => k.is_multiple_of(4) && is_aligned(range),
            Read::Lines => lines.is_multiple_of(4) && is_aligned(range),
        };
        can_read(self.a, m, a) && can_read(self.b, n, b)
    }
}

/// Whether a range starts at a multiple of four elements.
fn is_aligned(range: &Range) -> bool {
    // A block always does.
    range.dtype.is_block() || range.offset.is_multiple_of(4 * range.dtype.bytes() as u64)
}

/// The variant of a product: how the work is distributed over invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Config {
    /// A tile per workgroup, over blocks of A and B in shared memory.
    Tile(Tile, AccessPatterns),
    /// 4 × 4 elements per invocation, over a few terms.
    Outer(AccessPatterns),
    /// 64 invocations share the terms of `rows` × 4 dot products.
    Dots { rows: u32, wide: bool, subgroups: bool },
    /// Groups of invocations share the terms of `rows` × 32 sums, for a row-major B.
    Columns { rows: u32, wide: bool },
}

impl Config {
    /// Every variant of a product with B stored as `b`. The variants for few rows or few terms have no second segment.
    pub fn list(b: DType, bias: bool, two: bool) -> Vec<Config> {
        let reads = || AccessPatterns::list(b, bias || two);
        if b.is_block() {
            let tiles = reads().map(|reads| Config::Tile(QUANTISED_TILE, reads));
            let dots =
                [1, MAX_DOT_ROWS as u32].map(|rows| Config::Dots { rows, wide: true, subgroups: false });
            return tiles.chain(dots.into_iter().filter(|_| !two)).collect();
        }
        let tiles = Config::list_tiles(bias, two).iter();
        let mut all: Vec<Config> =
            tiles.flat_map(|tile| reads().map(|reads| Config::Tile(*tile, reads))).collect();
        if !two {
            all.extend(reads().map(Config::Outer));
            for rows in [1, 4, 8] {
                let both = |wide| [false, true].map(|subgroups| Config::Dots { rows, wide, subgroups });
                all.extend([false, true].into_iter().flat_map(both));
            }
            for rows in [1, MAX_COLUMN_ROWS as u32] {
                all.extend([false, true].map(|wide| Config::Columns { rows, wide }));
            }
        }
        all
    }

    /// The listed tiles: with a bias, few of those between the others; with two segments, the default tiles.
    fn list_tiles(bias: bool, two: bool) -> &'static [Tile] {
        match (bias, two) {
            (_, true) => &Tile::ALL[1..5],
            (true, false) => &Tile::ALL[..6],
            (false, false) => Tile::ALL,
        }
    }

    /// The pipeline's key.
    pub fn params(self) -> Params {
        match self {
            Config::Tile(tile, reads) => {
                let [sides, depth, lane] = tile.to_words();
                let kind = if tile.f16 { 3 << 16 } else { 0 };
                [kind | reads.index(), sides, depth, lane]
            }
            Config::Outer(reads) => [1 << 16 | reads.index(), 0, 0, 0],
            Config::Dots { rows, wide, subgroups } => [2 << 16, rows, wide as u32, subgroups as u32],
            Config::Columns { rows, wide } => [4 << 16, rows, wide as u32, 0],
        }
    }

    /// The variant of a pipeline's key.
    pub fn from_params(params: Params) -> Config {
        let [kind, second, third, fourth] = params;
        let reads = AccessPatterns::from_index(kind);
        match kind >> 16 {
            0 => Config::Tile(Tile::from_words([second, third, fourth]), reads),
            1 => Config::Outer(reads),
            4 => Config::Columns { rows: second, wide: third == 1 },
            3 => Config::Tile(Tile { f16: true, ..Tile::from_words([second, third, fourth]) }, reads),
            _ => Config::Dots { rows: second, wide: third == 1, subgroups: fourth == 1 },
        }
    }

    pub fn threads(self) -> u32 {
        match self {
            Config::Tile(tile, _) => tile.threads(),
            Config::Outer(_) => outer::THREADS,
            Config::Dots { .. } => dots::THREADS,
            Config::Columns { .. } => columns::THREADS,
        }
    }

    /// Rows and columns of C per workgroup.
    pub fn block(self) -> [usize; 2] {
        let [rows, columns] = match self {
            Config::Tile(tile, _) => [tile.rows, tile.columns],
            Config::Outer(_) => [outer::SIDE; 2],
            Config::Dots { rows, .. } => [rows, dots::COLUMNS],
            Config::Columns { rows, .. } => [rows, columns::COLUMNS],
        };
        [rows as usize, columns as usize]
    }

    /// Its properties in words: the division of the work, and the loads of the factors.
    pub fn describe(self) -> Vec<String> {
        let loads = |vectors: bool| if vectors { "vector loads" } else { "scalar loads" };
        let describe_reads = |reads: AccessPatterns| match reads.index() {
            0 => "scalar loads".into(),
            number => format!("vector loads of {}", ["A·Bᵀ", "A·B", "Aᵀ·B"][number as usize - 1]),
        };
        match self {
            Config::Tile(Tile { rows, columns, depth, lane: [down, across], f16 }, reads) => {
                let staged = if f16 { " in f16" } else { "" };
                vec![
                    format!("tile {rows}×{columns}×{depth}{staged}"),
                    format!("{down}×{across} each"),
                    describe_reads(reads),
                ]
            }
            Config::Outer(reads) => vec!["outer product".into(), describe_reads(reads)],
            Config::Dots { rows, wide, subgroups } => {
                let sums = if subgroups { "sums by subgroups" } else { "sums in shared memory" };
                vec![format!("dot products of {rows}"), loads(wide).into(), sums.into()]
            }
            Config::Columns { rows, wide } => vec![format!("columns of {rows}"), loads(wide).into()],
        }
    }

    /// Whether it sums in another order than the tiles.
    #[cfg(test)]
    pub fn is_for_few_rows(self) -> bool {
        matches!(self, Config::Dots { .. } | Config::Columns { .. })
    }

    /// Whether it rounds the factors to f16.
    pub fn is_in_f16(self) -> bool {
        matches!(self, Config::Tile(Tile { f16: true, .. }, _))
    }

    /// The variant for a part of the product: access by elements if the part does not consist of whole vectors.
    pub fn restrict_to(self, sizes: [usize; 3], a: &Range, b: &Range, c: &Range) -> Config {
        let can_read = |reads: AccessPatterns| {
            if reads.can_read(sizes, a, b) { reads } else { AccessPatterns::ELEMENTS }
        };
        match self {
            Config::Tile(tile, reads) => Config::Tile(tile, can_read(reads)),
            Config::Outer(_) if !(sizes[1].is_multiple_of(4) && is_aligned(c)) => {
                Config::Outer(AccessPatterns::ELEMENTS)
            }
            Config::Outer(reads) => Config::Outer(can_read(reads)),
            Config::Dots { rows, wide, subgroups } => {
                let wide = wide && AccessPatterns::ALL[1].can_read(sizes, a, b);
                Config::Dots { rows, wide, subgroups }
            }
            Config::Columns { rows, wide } => {
                let wide = wide && AccessPatterns::ALL[2].can_read(sizes, a, b);
                Config::Columns { rows, wide }
            }
        }
    }
}

/// The tile of products by a weight in blocks. There is one for each access pattern, since there are many block types.
const QUANTISED_TILE: Tile = Tile::MIDDLE;
/// Most terms that are not staged.
const MAX_UNSTAGED_TERMS: usize = 16;
/// Most rows of dot products, and fewest terms.
const MAX_DOT_ROWS: usize = 8;
const MIN_TERMS: usize = 64;
/// Most rows of products by a row-major B without staging.
const MAX_COLUMN_ROWS: usize = 4;

/// Whether a product is summed as dot products.
pub fn is_dots(g: &Gemm, a: &Matrix, b: &Matrix) -> bool {
    let few = g.m <= MAX_DOT_ROWS && g.k >= MIN_TERMS && b.row == 1 && a.column == 1;
    few && (!b.value.dtype.is_block() || AccessPatterns::choose(g, a, b, false) == AccessPatterns::ALL[1])
}

/// Whether it is a product of a few rows by a row-major B.
pub fn is_columns(g: &Gemm, a: &Matrix, b: &Matrix) -> bool {
    let few = g.m <= MAX_COLUMN_ROWS && g.k >= MIN_TERMS && b.column == 1 && a.column == 1;
    few && !b.value.dtype.is_block() && !is_dots(g, a, b)
}

/// Whether a product has few rows, so that it sums in another order than tiles.
pub fn has_few_rows(g: &Gemm, a: &Matrix, b: &Matrix) -> bool {
    is_dots(g, a, b) || is_columns(g, a, b)
}

/// Products with at most this many rows, or columns, stay f32 at any precision: with one tile, the pass that finds the
/// scales costs as much as the product reads.
const MAX_F32_SIDE: usize = 64;

/// Whether a product's factors are rounded to f16, on a device with that precision. The shape decides, since it changes
/// the result. Blocks are never rounded; all their types share one tile.
pub fn is_in_f16(g: &Gemm, b: &Matrix) -> bool {
    let large = g.m > MAX_F32_SIDE && g.n > MAX_F32_SIDE && g.k > MAX_UNSTAGED_TERMS;
    g.precision == Precision::F16 && large && !b.value.dtype.is_block()
}

pub type Candidates = SmallVec<[Config; 12]>;

/// The variants with the same bits, the default first: with a bias or a second segment as given, on a device with or
/// without subgroups.
pub fn list_candidates(
    g: &Gemm,
    a: &Matrix,
    b: &Matrix,
    c: &Matrix,
    [bias, two]: [bool; 2],
    subgroups: bool,
) -> Candidates {
    let fours = |n: usize| n.is_multiple_of(4);
    if is_in_f16(g, b) {
        let reads = AccessPatterns::choose(g, a, b, true);
        let first = Tile::choose_f16(g.batch, g.m, g.n);
        let others = Tile::IN_F16.iter().filter(|tile| **tile != first && tile.is_suitable(g.m, g.n));
        return [first].iter().chain(others).map(|tile| Config::Tile(*tile, reads)).collect();
    }
    let reads = AccessPatterns::choose(g, a, b, bias || two);
    if b.value.dtype.is_block() {
        let rows = if g.m == 1 { 1 } else { MAX_DOT_ROWS as u32 };
        let dots = Config::Dots { rows, wide: true, subgroups: false };
        return smallvec![if is_dots(g, a, b) { dots } else { Config::Tile(QUANTISED_TILE, reads) }];
    }
    if is_dots(g, a, b) {
        let rows = if g.m == 1 { 1 } else { g.m.next_multiple_of(4) as u32 };
        let wide = AccessPatterns::choose(g, a, b, false) == AccessPatterns::ALL[1];
        let config = |subgroups| Config::Dots { rows, wide, subgroups };
        return if subgroups { smallvec![config(true), config(false)] } else { smallvec![config(false)] };
    }
    if is_columns(g, a, b) {
        let rows = if g.m == 1 { 1 } else { MAX_COLUMN_ROWS as u32 };
        let wide = AccessPatterns::choose(g, a, b, false) == AccessPatterns::ALL[2];
        return smallvec![Config::Columns { rows, wide }];
    }
    let tiles = Config::list_tiles(bias, two);
    let first =
        Some(Tile::choose(g.batch, g.m, g.n)).filter(|tile| tiles.contains(tile)).unwrap_or(Tile::SMALL);
    let mut all = Candidates::new();
    if g.k <= MAX_UNSTAGED_TERMS && !two {
        let c_fours = fours(c.row) && fours(c.value.offset) && (g.batch == 1 || fours(c.batch));
        all.push(Config::Outer(if c_fours && fours(g.n) { reads } else { AccessPatterns::ELEMENTS }));
    }
    all.push(Config::Tile(first, reads));
    let others = tiles.iter().filter(|tile| **tile != first && tile.is_suitable(g.m, g.n));
    all.extend(others.map(|tile| Config::Tile(*tile, reads)));
    all
}

/// Terms per part of K. K is split where C is small and K is long, so that there is work for a whole GPU; otherwise
/// this is K. The shape alone decides, since it changes the order of sums.
pub fn choose_part(g: &Gemm, a: &Matrix, b: &Matrix) -> usize {
    let blocks = g.m.div_ceil(64) * g.n.div_ceil(64);
    if b.value.dtype.is_block() || g.batch > 1 || blocks == 0 || blocks > 32 || has_few_rows(g, a, b) {
        return g.k;
    }
    let parts = (128 / blocks).min(g.k / 128).min(16);
    if parts < 2 {
        return g.k;
    }
    let parts = 1 << parts.ilog2();
    g.k.div_ceil(parts).next_multiple_of(16)
}

/// The product with the rows of the whole batch as one matrix, if they are contiguous and share B.
pub fn collapse_batch<'a>(
    g: Gemm,
    a: Matrix<'a>,
    b: &Matrix,
    c: Matrix<'a>,
) -> (Gemm, Matrix<'a>, Matrix<'a>) {
    let one = g.batch > 1 && b.batch == 0 && a.batch == g.m * a.row && c.batch == g.m * c.row;
    match one {
        true => (Gemm { m: g.batch * g.m, batch: 1, ..g }, a.with_batch_stride(0), c.with_batch_stride(0)),
        false => (g, a, c),
    }
}

#[cfg(test)]
mod tests;
