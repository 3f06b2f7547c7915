// dk = scale · Σ dSᵀ q, dv = Σ Pᵀ do: 32 keys of a head stay, tiles of queries pass by, one query head after another.
fn kernel(group: u32, lane: u32) {
  let blocks = (p.keys + TILE - 1u) / TILE;
  let begin = group % blocks * TILE;
  let count = min(TILE, p.keys - begin);
  let head = group / blocks * p.group_heads;
  let k_start = p.k_at + key_start(head_of(head), begin);
  let v_start = p.v_at + key_start(head_of(head), begin);
  let d_k_start = p.d_k_at + key_start(head_of(head), begin);
  let d_v_start = p.d_v_at + key_start(head_of(head), begin);
  // Queries that see any of these keys by position, from an even one on.
  var start = 0u;
  var end = p.queries;
  if CAUSAL {
    let since = p.key_at + begin;
    let past = p.key_at + begin + count - 1u + p.window;
    start = min(since - min(since, p.query_at), p.queries) / 2u * 2u;
    end = min(past - min(past, p.query_at), p.queries);
  }
  var began = p.first == 0u;
  for (var member = 0u; member < p.group_heads; member++) {
    let h = head_of(head + member);
    for (var t = start; t < end; t += TILE) {
      let rows = min(TILE, p.queries - t);
      let q_start = p.q_at + query_start(h, t);
      let d_o_start = p.d_o_at + query_start(h, t);
      SCORES
      D_SCORES
      workgroupBarrier();
      differentiate(h, t, rows, begin, count, lane);
      workgroupBarrier();
      D_VALUES
      D_KEYS
      began = true;
      workgroupBarrier();
    }
  }
  if began { return; }
  for (var i = lane; i < count * (p.dim / 2u); i += THREADS) {
    let at = key_start(head_of(head), begin + i / (p.dim / 2u)) / 2u + i % (p.dim / 2u);
    d_k_words[p.d_k_at / 2u + at] = u64(0u);
    d_v_words[p.d_v_at / 2u + at] = u64(0u);
  }
}
