// dk = scale · Σ dSᵀ q, dv = Σ Pᵀ do: keys of a head stay, tiles of queries pass by, one query head after another.
fn kernel(group: u32, lane: u32) {
  let blocks = (p.keys + ROWS - 1u) / ROWS;
  let begin = group % blocks * ROWS;
  let head = group / blocks * p.group_heads;
  let h = head_of(head);
  let last_key = p.keys - 1u;
  let last = p.queries - 1u;
  let words = p.dim / WIDTH;
  let scale = p.scale;
  // Queries that see any of these keys by position.
  var start = 0u;
  var end = p.queries;
  if CAUSAL {
    let since = p.key_at + begin;
    let past = p.key_at + min(begin + ROWS - 1u, last_key) + p.window;
    start = min(since - min(since, p.query_at), p.queries);
    end = min(past - min(past, p.query_at), p.queries);
  }
KEYS
STATE
  for (var member = 0u; member < p.group_heads; member++) {
    let h = head_of(head + member);
    for (var t = start; t < end; t += TILE) {
      let count = min(TILE, p.queries - t);
QUERIES
SCORES
D_SCORES
DIFFERENTIATE
SUMS
    }
  }
FINISH
}
