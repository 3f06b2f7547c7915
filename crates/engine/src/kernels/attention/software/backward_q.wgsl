// dq = scale · Σ dS k: query rows of a head stay, tiles of keys pass by.
fn kernel(group: u32, lane: u32) {
  let blocks = (p.queries + ROWS - 1u) / ROWS;
  let t = group % blocks * ROWS;
  let h = head_of(group / blocks);
  let last = p.queries - 1u;
  let words = p.dim / WIDTH;
  let scale = p.scale;
QUERIES
STATE
  let end = end_key(min(t + ROWS - 1u, last));
  for (var begin = first_key(t); begin < end; begin += TILE) {
    let count = min(TILE, p.keys - begin);
KEYS
SCORES
D_SCORES
DIFFERENTIATE
SUMS
  }
FINISH
}
