// Visibility of keys, and offsets of rows. Functions return once: FXC (DX12) treats the code after an early return as
// non-uniform control flow, and rejects a barrier in a loop with bounds from it.
const CAUSAL = 1u;
const SEGMENTS = 2u;
const MASK = 4u;
const FIRST = 8u;
// The score of a hidden key.
const HIDDEN = -3.4e38;
const FLOOR = -1.0e38;
// The lower bound of visible scores, so that none equals HIDDEN.
const LOWEST = -3.3e38;
// The offset of a row past the end, and the position of a key that no query sees.
const NOWHERE = 0xffffffffu;

// A workgroup's own rows: `first` to `last` of one batch row and key/value head.
struct Block { b: u32, head: u32, first: u32, last: u32 }
fn block_of(group: u32, count: u32, own: u32) -> Block {
  let blocks = (count + own - 1u) / own;
  let first = group % blocks * own;
  return Block(group / blocks / p.kv_heads, (group / blocks) % p.kv_heads, first, min(first + own, count) - 1u);
}

// The offset of query row `row` = (t, g) in q and in values of the same layout; below, of its log-sum-exp and of key
// `key` in k.
fn query_start(block: Block, row: u32) -> u32 {
  let head = block.head * p.group + row % p.group;
  return block.b * p.q_batch + (row / p.group) * p.q_row + head * p.q_head;
}
fn query_place(block: Block, row: u32, end: u32) -> u32 {
  return select(query_start(block, row), NOWHERE, row >= end);
}
fn lse_at(block: Block, row: u32) -> u32 { return query_start(block, row) / p.dim; }
fn key_place(block: Block, key: u32, end: u32) -> u32 {
  return select(block.b * p.kv_batch + key * p.kv_row + block.head * p.kv_head, NOWHERE, key >= end);
}

// The keys that a query sees: positions `first` to `last` with an equal label.
struct RowMask { first: u32, last: u32, label: i32 }
fn all_masked() -> RowMask { return RowMask(1u, 0u, 0); }
fn row_mask_at(t: u32, label: i32) -> RowMask {
  let end = p.query_at + t + 1u;
  let causal = (p.flags & CAUSAL) != 0u;
  return RowMask(select(0u, end - min(end, p.window), causal), select(NOWHERE, end, causal) - 1u, label);
}
// The position of a key, or NOWHERE if it is hidden.
fn position(block: Block, key: u32, end: u32) -> u32 {
  var at = NOWHERE;
  if key < end {
    if !key_hidden(block.b, key) { at = p.key_at + key; }
  }
  return at;
}

// The range of this window's keys that row t sees by position.
fn first_key(t: u32) -> u32 {
  let end = p.query_at + t + 1u;
  let begin = end - min(end, p.window);
  return select(0u, min(begin - min(begin, p.key_at), p.keys), (p.flags & CAUSAL) != 0u);
}
fn end_key(t: u32) -> u32 {
  let end = p.query_at + t + 1u;
  return select(p.keys, min(end - min(end, p.key_at), p.keys), (p.flags & CAUSAL) != 0u);
}

fn nans4(v: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u); }
fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }
