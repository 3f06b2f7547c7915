const HIDDEN = -3.4e38;
const FLOOR = -1.0e38;
// A visible score never looks hidden.
const LOWEST = -3.3e38;
const WIDE = DIM / 4u;
// Lanes of one resident row, and vectors of its sum that each of them holds.
const LANES = THREADS / ROWS;
const HELD = WIDE / LANES;

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
// Where query row `row` = (t, g) starts in q and what has its layout, and its log-sum-exp.
fn q_at(b: u32, head: u32, row: u32) -> u32 {
  return b * p.q_batch + (row / p.group_heads) * p.q_row + (head * p.group_heads + row % p.group_heads) * p.dim;
}
fn lse_at(b: u32, head: u32, row: u32) -> u32 {
  return b * p.lse_batch + (row / p.group_heads) * p.lse_row + head * p.group_heads + row % p.group_heads;
}
fn kv_at(b: u32, head: u32, key: u32) -> u32 { return b * p.kv_batch + key * p.kv_row + head * p.dim; }
// exp(s − lse); NaN for NaN, which exp does not promise.
fn weight(s: f32, lse: f32) -> f32 {
  if is_nan(s) || is_nan(lse) { return nan(); }
  return exp(s - lse);
}
