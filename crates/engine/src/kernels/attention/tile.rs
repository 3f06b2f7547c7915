//! How a variant divides its rows into tiles, and the shader lines that result.

use std::fmt::Write;

use super::config::{CLASSES, Config};

/// The division of rows: an invocation has `rows` own rows and 4 passing ones; `across` invocations share a row.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    dim: usize,
    threads: usize,
    across: usize,
    rows: usize,
}

/// Invocations per row of scores if own rows are queries. A variant with subgroups needs subgroups of at least this
/// size.
pub const ACROSS: usize = 8;
/// Vectors of a row in one step of the scores.
const SLICE: usize = 8;
/// The most vectors of workgroup memory for weights and the rows that they multiply.
const STREAMED: usize = 864;

impl Tile {
    /// The tile if own rows are queries.
    pub fn for_queries(config: Config) -> Tile {
        let rows = [4, 4, 4, 2][config.class];
        Tile { dim: CLASSES[config.class], threads: config.threads, across: ACROSS, rows }
    }

    /// The tile if own rows are keys, with two sums each.
    pub fn for_keys(config: Config) -> Tile {
        let [across, rows] = [[8, 4], [8, 4], [16, 4], [16, 2]][config.class];
        Tile { dim: CLASSES[config.class], threads: config.threads, across, rows }
    }

    /// The number of own rows of a workgroup.
    pub fn own_rows(&self) -> usize {
        self.threads / self.across * self.rows
    }

    fn passing_rows(&self) -> usize {
        4 * self.across
    }

    /// The number of an invocation's sum vectors per row.
    fn columns(&self) -> usize {
        self.dim / 4 / self.across
    }

    fn weights(&self) -> usize {
        self.own_rows() * (self.across + 1)
    }

    /// The number of passing rows that are added in one step.
    fn keys(&self) -> usize {
        let fits = |keys: &usize| self.weights() + keys * self.dim / 4 <= STREAMED;
        [32, 16, 8, 4]
            .into_iter()
            .filter(|keys| *keys <= self.passing_rows())
            .find(fits)
            .expect("the least fits")
    }

    /// The number of vectors in workgroup memory.
    fn pool(&self) -> usize {
        let slices = (self.own_rows() + self.passing_rows()) * (SLICE + 1);
        let summed = self.weights() + (self.keys() * self.dim / 4).max(self.threads);
        slices.max(summed)
    }

    pub fn emit_constants(&self) -> String {
        format!(
            "const DIM = {}u;\nconst TX = {}u;\nconst RM = {}u;\nconst CC = {}u;\nconst KEYS = {}u;\nconst POOL = {}u;\n",
            self.dim,
            self.across,
            self.rows,
            self.columns(),
            self.keys(),
            self.pool()
        )
    }

    /// Repeats each line for every row and vector that it refers to.
    pub fn unroll(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() * 4);
        for line in text.lines() {
            let rows = if line.contains("$i") { self.rows } else { 1 };
            let columns = if line.contains("$c") { self.columns() } else { 1 };
            for (i, c) in (0..rows).flat_map(|i| (0..columns).map(move |c| (i, c))) {
                writeln!(out, "{}", line.replace("$i", &i.to_string()).replace("$c", &c.to_string()))
                    .unwrap();
            }
        }
        out
    }

    /// Repeats `text` for each row, and `rest` for the rows missing to four.
    pub fn emit_list(&self, text: &str, rest: Option<&str>) -> String {
        let emit = |i: usize| match (i < self.rows, rest) {
            (true, _) => Some(text.replace("$i", &i.to_string())),
            (false, rest) => rest.map(String::from),
        };
        (0..4).filter_map(emit).collect::<Vec<_>>().join(", ")
    }

    /// The function for the product of own rows of `a` and passing rows of `b`.
    pub fn emit_scores(&self, a: &str, b: &str) -> String {
        include_str!("scores.wgsl")
            .replace("scores_A_B", &format!("scores_{a}_{b}"))
            .replace("A4(", &format!("{a}4("))
            .replace("B4(", &format!("{b}4("))
            .replace("SCORE_LIST", &self.emit_list("s$i", None))
    }
}
