//! Parts of WGSL bodies.

/// The components of a vector.
pub const COMPONENTS: [&str; 4] = ["x", "y", "z", "w"];

pub fn emit_each(n: u32, line: impl Fn(u32) -> String) -> String {
    (0..n).map(line).collect()
}

pub fn emit_grid(rows: u32, columns: u32, line: impl Fn(u32, u32) -> String) -> String {
    emit_each(rows, |i| emit_each(columns, |j| line(i, j)))
}

/// Tiles per band in the order of workgroups.
const BAND: u32 = 8;

/// WGSL that finds `row` and `column` of a workgroup's tile in matrix `z`, of `row_blocks` × `column_blocks` tiles.
/// Concurrent workgroups are neighbours in a band of eight tiles, so that they share both factors in the cache.
pub fn emit_position([height, width]: [u32; 2], row_blocks: &str, column_blocks: &str) -> String {
    format!(
        "  let row_blocks = {row_blocks};
  let column_blocks = {column_blocks};
  let z = group / (row_blocks * column_blocks);
  let block = group % (row_blocks * column_blocks);
  let band = block / ({BAND}u * column_blocks) * {BAND}u;
  let tall = min({BAND}u, row_blocks - band);
  let within = block - band * column_blocks;
  var row = (band + within % tall) * {height}u;
  var column = within / tall * {width}u;
"
    )
}
