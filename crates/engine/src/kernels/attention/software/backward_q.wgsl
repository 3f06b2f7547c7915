// dq = scale · Σ dS k: 32 query rows of a head stay, tiles of keys pass by.
fn kernel(group: u32, lane: u32) {
  let blocks = (p.queries + TILE - 1u) / TILE;
  let t = group % blocks * TILE;
  let h = head_of(group / blocks);
  let rows = min(TILE, p.queries - t);
  let q_start = p.q_at + query_start(h, t);
  let d_o_start = p.d_o_at + query_start(h, t);
  let d_q_start = p.d_q_at + query_start(h, t);
  var began = p.first == 0u;
  let end = end_key(t + rows - 1u);
  for (var begin = first_key(t) / 2u * 2u; begin < end; begin += TILE) {
    let count = min(TILE, p.keys - begin);
    let k_start = p.k_at + key_start(h, begin);
    let v_start = p.v_at + key_start(h, begin);
    SCORES
    D_SCORES
    workgroupBarrier();
    differentiate(h, t, rows, begin, count, lane);
    workgroupBarrier();
    D_QUERIES
    began = true;
    workgroupBarrier();
  }
  if began { return; }
  for (var i = lane; i < rows * (p.dim / 2u); i += THREADS) {
    d_q_words[(p.d_q_at + query_start(h, t + i / (p.dim / 2u))) / 2u + i % (p.dim / 2u)] = u64(0u);
  }
}
