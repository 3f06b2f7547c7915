//! How a form cuts its rows into tiles, and what that makes of the shaders' lines.

use std::fmt::Write;

use super::form::{CLASSES, Form};

/// How a form cuts its rows: an invocation has `rows` own rows and 4 passing ones; `across` invocations share a row.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    dim: usize,
    threads: usize,
    across: usize,
    rows: usize,
}

/// Invocations of a row of scores where own rows are queries: a subgroup has as many at least, or its form is not
/// taken.
pub const ACROSS: usize = 8;
/// Vectors of a row that scores take at a time.
const SLICE: usize = 8;
/// Vectors that weights and the rows that they are summed with may take of workgroup memory.
const STREAMED: usize = 864;

impl Tile {
    /// Own rows are queries.
    pub fn of_queries(form: Form) -> Tile {
        let rows = [4, 4, 4, 2][form.class];
        Tile { dim: CLASSES[form.class], threads: form.threads, across: ACROSS, rows }
    }

    /// Own rows are keys, with two sums each.
    pub fn of_keys(form: Form) -> Tile {
        let [across, rows] = [[8, 4], [8, 4], [16, 4], [16, 2]][form.class];
        Tile { dim: CLASSES[form.class], threads: form.threads, across, rows }
    }

    /// Own rows of a workgroup.
    pub fn own(&self) -> usize {
        self.threads / self.across * self.rows
    }

    fn passing(&self) -> usize {
        4 * self.across
    }

    /// Vectors of sums that an invocation has of each row.
    fn columns(&self) -> usize {
        self.dim / 4 / self.across
    }

    fn weights(&self) -> usize {
        self.own() * (self.across + 1)
    }

    /// Passing rows that are summed at a time.
    fn keys(&self) -> usize {
        let fits = |keys: &usize| self.weights() + keys * self.dim / 4 <= STREAMED;
        [32, 16, 8, 4].into_iter().filter(|keys| *keys <= self.passing()).find(fits).expect("the least fits")
    }

    /// Vectors of workgroup memory.
    fn pool(&self) -> usize {
        let slices = (self.own() + self.passing()) * (SLICE + 1);
        let summed = self.weights() + (self.keys() * self.dim / 4).max(self.threads);
        slices.max(summed)
    }

    pub fn constants(&self) -> String {
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

    /// A line for each row and vector that it names.
    pub fn unrolled(&self, text: &str) -> String {
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

    /// `text` for each row, `rest` for rows that there are not.
    pub fn list(&self, text: &str, rest: Option<&str>) -> String {
        let of = |i: usize| match (i < self.rows, rest) {
            (true, _) => Some(text.replace("$i", &i.to_string())),
            (false, rest) => rest.map(String::from),
        };
        (0..4).filter_map(of).collect::<Vec<_>>().join(", ")
    }

    /// The product of own rows of `a` and passing ones of `b`.
    pub fn scores(&self, a: &str, b: &str) -> String {
        include_str!("scores.wgsl")
            .replace("scores_A_B", &format!("scores_{a}_{b}"))
            .replace("A4(", &format!("{a}4("))
            .replace("B4(", &format!("{b}4("))
            .replace("SCORE_LIST", &self.list("s$i", None))
    }
}
