//! A product of pairs (pairs.rs) as a call in a shader that makes several.

use super::pairs::Pairs;

/// What a product's function reads: the scalars of `gemm`, and where its operands start.
pub const SIZES: &str = "struct Sizes {
  m: u32, n: u32, k: u32, k2: u32,
  a_at: u32, a_row: u32, a_column: u32, a_batch: u32,
  b_at: u32, b_row: u32, b_column: u32, b_batch: u32,
  a2_at: u32, a2_row: u32, a2_column: u32,
  b2_at: u32, b2_row: u32, b2_column: u32,
  c_at: u32, c_row: u32, c_batch: u32,
  alpha: f32, alpha2: f32, row_blocks: u32, column_blocks: u32,
}
";

/// A product's place in WGSL: sizes, then start, row step and column step of each operand.
pub struct Spelled<'a> {
    pub sizes: [&'a str; 3],
    pub a: [&'a str; 3],
    pub b: [&'a str; 3],
    pub c: [&'a str; 2],
    /// k, a and b of the second segment.
    pub second: Option<(&'a str, [&'a str; 3], [&'a str; 3])>,
    pub alpha: &'a str,
}

impl Default for Spelled<'_> {
    fn default() -> Self {
        let nothing = ["0u"; 3];
        Spelled { sizes: nothing, a: nothing, b: nothing, c: ["0u"; 2], second: None, alpha: "1.0" }
    }
}

impl Spelled<'_> {
    /// The call of `function`, which makes tiles as `pairs` says.
    pub fn call(&self, function: &str, group: &str, pairs: Pairs) -> String {
        let [m, n, k] = self.sizes;
        let ([a, a_row, a_column], [b, b_row, b_column], [c, c_row]) = (self.a, self.b, self.c);
        let nothing = ("0u", ["0u"; 3], ["0u"; 3]);
        let (k2, [a2, a2_row, a2_column], [b2, b2_row, b2_column]) = self.second.unwrap_or(nothing);
        let [height, width] = pairs.block();
        let alpha = self.alpha;
        format!(
            "{function}(Sizes({m}, {n}, {k}, {k2}, {a}, {a_row}, {a_column}, 0u, {b}, {b_row}, {b_column}, 0u, \
             {a2}, {a2_row}, {a2_column}, {b2}, {b2_row}, {b2_column}, {c}, {c_row}, 0u, {alpha}, 1.0, \
             ({m} + {}u) / {height}u, ({n} + {}u) / {width}u), {group}, lane);",
            height - 1,
            width - 1,
        )
    }
}
