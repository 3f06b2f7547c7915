// Who sees whom, where rows stand, and who holds what: the first part of each of these shaders.
const HIDDEN = -3.4e38;
const FLOOR = -1.0e38;
// A visible score never looks hidden.
const LOWEST = -3.3e38;
const WIDE = DIM / 4u;
// Lanes of one resident row, and vectors of its sum that each of them holds.
const LANES = THREADS / ROWS;
const HELD = WIDE / LANES;

// The tile that passes by.
var<workgroup> stream: array<vec4<f32>, TILE * WIDE>;

// What a workgroup is at: ROWS of `count` rows from `first` to `last`, of one batch row and key/value head.
struct Block { b: u32, head: u32, first: u32, last: u32 }
fn block_of(group: u32, count: u32) -> Block {
  let blocks = (count + ROWS - 1u) / ROWS;
  let first = group % blocks * ROWS;
  return Block(group / blocks / p.kv_heads, (group / blocks) % p.kv_heads, first, min(first + ROWS, count) - 1u);
}
// What a lane is at: the block's r-th row, of which it holds every LANES-th vector from j.
struct Own { r: u32, j: u32, row: u32, live: bool }
fn own_of(lane: u32, first: u32, count: u32) -> Own {
  let r = lane / LANES;
  return Own(r, lane % LANES, first + r, first + r < count);
}

fn sees(b: u32, t: u32, key: u32) -> bool {
  if CAUSAL {
    let query_at = p.query_at + t;
    let key_at = p.key_at + key;
    if key_at > query_at || query_at - key_at >= p.window { return false; }
  }
  if SEGMENTS {
    let at = b * p.segment_batch;
    if load_query_segment(at + t) != load_key_segment(at + key) { return false; }
  }
  if MASK && load_mask(b * p.mask_batch + key) == 0 { return false; }
  return true;
}
// Keys of this window that row t sees by position.
fn first_key(t: u32) -> u32 {
  if !CAUSAL { return 0u; }
  let end = p.query_at + t + 1u;
  let begin = end - min(end, p.window);
  return min(begin - min(begin, p.key_at), p.keys);
}
fn end_key(t: u32) -> u32 {
  if !CAUSAL { return p.keys; }
  let end = p.query_at + t + 1u;
  return min(end - min(end, p.key_at), p.keys);
}
// Where query row `row` = (t, g) starts in q and what has its layout, its log-sum-exp, and key `key` in k.
fn q_at(block: Block, row: u32) -> u32 {
  let head = block.head * p.group_heads + row % p.group_heads;
  return block.b * p.q_batch + (row / p.group_heads) * p.q_row + head * p.dim;
}
fn lse_at(block: Block, row: u32) -> u32 {
  let head = block.head * p.group_heads + row % p.group_heads;
  return block.b * p.lse_batch + (row / p.group_heads) * p.lse_row + head;
}
fn kv_at(block: Block, key: u32) -> u32 {
  return block.b * p.kv_batch + key * p.kv_row + block.head * p.dim;
}
// exp(s − lse); NaN for NaN, which exp does not promise.
fn weight(s: f32, lse: f32) -> f32 {
  if is_nan(s) || is_nan(lse) { return nan(); }
  return exp(s - lse);
}
