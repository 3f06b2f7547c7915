// Where rows stand, and who holds what.
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
