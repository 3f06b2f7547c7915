//! The shaders for a GPU in software: tiles of scores that never leave registers.
//!
//! What such a driver (Mesa's llvmpipe) makes of a shader decides. A load from a buffer is a loop over the 8
//! lanes: 8.4 ns for a word of 64 bits, 11.1 for two, 17.8 for four (4.2, 2.8 and 2.2 a float of each lane;
//! 3.3 ns of each of vec4<f32>); a multiply-add takes 0.3 to 0.5, an element of another lane is one shuffle,
//! and a variable that has no register lies on the stack for about a cycle. Both sides of a branch are run
//! under a mask, and a loop's body at least once; what is carried around a loop is blended in every round.
//! Layout: a workgroup is one subgroup of 8 lanes. It keeps 8 to 32 query rows of one query head (forward,
//! d_q) or keys of one key/value head (d_k, d_v) and goes through the other side 32 at a time. A tile's scores
//! are variables, row by lane's column (tile.rs). Softmax and dS are made in them, and they are the next
//! product's factor by shuffles. Sums over tiles are variables, too: rows × D / 8 of them.
//! Cost: a tile of 32 × 32 at D = 64 has 8,192 multiply-adds of vectors a product (two forward, seven
//! backward); it reads 32 words of four a factor, of which there are 3 forward, 5 and 6 backward, and
//! writes nothing. Some 40 operations a score are the softmax's.
//! Values that are not finite: a weight of 0 makes NaN of them. The highest bits of all values that were read
//! are kept; where one is not finite, a workgroup's rows are made again, key by key (`apart`).
//! Measured: attention of SmolLM2 (9 heads of 64 by 3, 512 tokens, causal, Mesa 22.3.6 on two cores),
//! forward, d_q, d_k and d_v: 5.5, 8.2 and 13 ms, 50 to 60 GFLOP/s of their tiles' products, where a product
//! of 1024³ made 59. Scores in workgroup memory and sums in the outputs, words of 64 bits, had made 119 ms
//! of a block's 368 on the same machine at 41 GFLOP/s of that product. First use compiles for 1.2, 1.3
//! and 1.0 s (0.2 where Mesa finds it in its cache).
//!
//! | tried                                  | forward | d_q  | d_k, d_v | compiles in |
//! |----------------------------------------|---------|------|----------|-------------|
//! | 32 rows                                | 5.4     | 8.0  | 12.8     | 1.2, 1.3, 2.7 s |
//! | 24 rows                                | 5.9     | 9.3  | 13.6     | 0.9, 0.8, 1.7 |
//! | 16 rows                                | 6.7     | 9.5  | 12.3     | 0.6, 0.5, 1.0 |
//! | 8 rows                                 | 7.5     | 13.3 | 15.4     | 0.3, 0.3, 0.4 |
//!
//! Kept: 32, and 16 where keys stay. Words pair neighbours along D alone: any number of queries and keys is
//! served; other head sizes than the classes' take the plain shaders.

mod backward;
mod forward;
mod tile;

pub use backward::{backward_kv, backward_q};
pub use forward::forward;

use super::geometry::{CAUSAL, Geometry, MASK, SEGMENTS};
use crate::device::Profile;
use crate::dtype::DType;
use crate::kernel::Params;
use crate::kernels::gemm::pairs::{LANES, halves_of};
use crate::kernels::gemm::wgsl::each;
use crate::recording::Range;
use tile::{ACROSS, COLUMNS, Source, Tile};

/// `params[2]` of these shaders.
pub const SOFTWARE: u32 = 1;
pub const THREADS: u32 = LANES;

/// Fewer rows are not worth a tile.
const FEWEST: usize = 8;

/// Head sizes up to the first number, if they are multiples of the tile's width, have these tiles where
/// queries stay, and where keys do: as many sums over tiles as compile within a second or so.
const CLASSES: [(usize, Tile, Tile); 5] = [
    (16, Tile { rows: 32, width: 2, words: 1 }, Tile { rows: 32, width: 2, words: 1 }),
    (32, Tile { rows: 32, width: 4, words: 1 }, Tile { rows: 32, width: 4, words: 1 }),
    (64, Tile { rows: 32, width: 8, words: 1 }, Tile { rows: 16, width: 8, words: 1 }),
    (128, Tile { rows: 16, width: 8, words: 2 }, Tile { rows: 8, width: 8, words: 2 }),
    (256, Tile { rows: 8, width: 8, words: 4 }, Tile { rows: 8, width: 8, words: 4 }),
];

pub const KINDS: u32 = CLASSES.len() as u32;

/// `params[1]` where the device makes products of pairs and words fit, and the rows of a workgroup.
pub fn fits(profile: &Profile, g: &Geometry, keeps_keys: bool, ranges: &[Range]) -> Option<(u32, usize)> {
    let class = CLASSES.iter().position(|(dim, ..)| g.dim <= *dim)?;
    let (_, of_queries, of_keys) = CLASSES[class];
    let Tile { width, rows, .. } = if keeps_keys { of_keys } else { of_queries };
    let whole = |n: usize| n.is_multiple_of(width as usize);
    // Labels are read by elements.
    let mut floats = ranges.iter().filter(|r| r.dtype == DType::F32);
    let fits = profile.software
        && profile.subgroup == LANES
        && g.queries >= FEWEST
        && whole(g.dim)
        && floats.all(|r| whole(r.offset as usize / 4));
    fits.then_some((class as u32, rows as usize))
}

/// Which labels are looked at.
#[derive(Clone, Copy)]
struct Sight {
    flags: u32,
}

impl Sight {
    fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether a query at position `query`, of segment `query_segment`, sees a key.
    fn sees(self, shown: &str, query: &str, key: &str, segments: [&str; 2]) -> String {
        let mut all = shown.to_string();
        if self.has(CAUSAL) {
            all += &format!(" & ({query} - {key} < p.window)");
        }
        if self.has(SEGMENTS) {
            all += &format!(" & ({} == {})", segments[0], segments[1]);
        }
        all
    }
}

struct Shader {
    tile: Tile,
    sight: Sight,
}

impl Shader {
    fn of_queries([flags, class, ..]: Params) -> Shader {
        Shader { tile: CLASSES[class as usize].1, sight: Sight { flags } }
    }

    fn of_keys([flags, class, ..]: Params) -> Shader {
        Shader { tile: CLASSES[class as usize].2, sight: Sight { flags } }
    }

    /// The head of all three, and the bindings that are read and written by words.
    fn head(&self, bindings: &[(&str, u32, &str)]) -> String {
        let Tile { rows, width, .. } = self.tile;
        let words: String = bindings
            .iter()
            .map(|(name, binding, access)| self.tile.binding(name, *binding, access))
            .collect();
        format!("const ROWS = {rows}u;\nconst TILE = {COLUMNS}u;\nconst WIDTH = {width}u;\n")
            + &words
            + &halves_of(DType::F32)
            + include_str!("common.wgsl")
    }

    /// Positions and segments of the queries that are rows, from t on.
    fn query_rows(&self) -> String {
        let tile = self.tile;
        let mut out = each(tile.rows, |i| format!("  let query{i} = p.query_at + t + {i}u;\n"));
        if self.sight.has(SEGMENTS) {
            out += &tile.each_group(|g| {
                let at = format!("min(t + lane + {}u, last)", g * LANES);
                format!("  let segments{g} = load_query_segment(h.b * p.segment_batch + {at});\n")
            });
            out += &tile.each_row("segments", |i, of| format!("  let query_segment{i} = {of};\n"));
        }
        out
    }

    /// Positions, labels and whether it is there of the keys that are columns, from `begin` on.
    fn key_columns(&self) -> String {
        each(ACROSS, |j| {
            let mut out = format!(
                "    let own{j} = begin + {ACROSS}u * lane + {j}u;
    let key{j} = p.key_at + own{j};
    var shown{j} = own{j} < p.keys;
"
            );
            if self.sight.has(MASK) {
                out += &format!(
                    "    shown{j} = shown{j} & (load_mask(h.b * p.mask_batch + min(own{j}, p.keys - 1u)) != 0);\n"
                );
            }
            if self.sight.has(SEGMENTS) {
                out += &format!(
                    "    let key_segment{j} = load_key_segment(h.b * p.segment_batch + min(own{j}, p.keys - 1u));\n"
                );
            }
            out
        })
    }

    /// Whether row i, a query, sees column j, a key.
    fn query_sees(&self, i: u32, j: u32) -> String {
        self.sight.sees(
            &format!("shown{j}"),
            &format!("query{i}"),
            &format!("key{j}"),
            [&format!("query_segment{i}"), &format!("key_segment{j}")],
        )
    }

    /// Where the rows of k and v start that are columns.
    fn keys_at(&self, names: &[&str]) -> String {
        names
            .iter()
            .map(|name| {
                self.tile.columns_at(name, "min(begin + 4u * lane + COLUMN, p.keys - 1u)", |row| {
                    format!("p.{name}_at + key_start(h, {row})")
                })
            })
            .collect()
    }

    /// Where the rows of q and do start that are rows.
    fn queries_at(&self, names: &[&str]) -> String {
        names
            .iter()
            .map(|name| {
                self.tile.rows_at(name, "min(t + lane + GROUP, last)", |row| {
                    format!("p.{name}_at + query_start(h, {row})")
                })
            })
            .collect()
    }
}

const Q: Source = Source { array: "q_words", place: "q" };
const K: Source = Source { array: "k_words", place: "k" };
const V: Source = Source { array: "v_words", place: "v" };
const D_O: Source = Source { array: "d_o_words", place: "d_o" };
