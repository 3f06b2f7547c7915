// dq = scale · Σ dS k: ROWS query rows and their do stay, tiles of values and then of keys pass by.
// Cost: 6·T·S·D flops a head (S and do vᵀ are made here again).
var<workgroup> queries: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> d_outs: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> d_score: array<f32, ROWS * TILE>;

fn kernel(group: u32, lane: u32) {
  let rows = p.queries * p.group_heads;
  let block = block_of(group, rows);
  let own = own_of(lane, block.first, rows);
  let t = own.row / p.group_heads;

  for (var i = lane; i < ROWS * WIDE; i += THREADS) {
    queries[i] = tile_q(block, block.first, rows, i);
    d_outs[i] = tile_d_o(block, block.first, rows, i);
  }
  var lse = 0.0;
  var delta = 0.0;
  if own.live {
    lse = load_lse(lse_at(block, own.row));
    delta = load_delta(lse_at(block, own.row));
    if lse < FLOOR { lse = FLOOR; }
  }
  var sums: array<vec4<f32>, HELD>;
  for (var i = 0u; i < HELD; i += 1u) { sums[i] = vec4<f32>(); }
  let end = end_key(block.last / p.group_heads);
  for (var begin = first_key(block.first / p.group_heads); begin < end; begin += TILE) {
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_v(block, begin, end, i); }
    workgroupBarrier();
    for (var n = own.j; n < TILE; n += LANES) {
      var s = 0.0;
      for (var d = 0u; d < WIDE; d += 1u) { s += dot(d_outs[own.r * WIDE + d], stream[n * WIDE + d]); }
      d_score[own.r * TILE + n] = s - delta;
    }
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_k(block, begin, end, i); }
    workgroupBarrier();
    for (var n = own.j; n < TILE; n += LANES) {
      var s = 0.0;
      if own.live && begin + n < end && sees(block.b, t, begin + n) {
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(queries[own.r * WIDE + d], stream[n * WIDE + d]); }
        s = weight(s, lse) * d_score[own.r * TILE + n];
      }
      d_score[own.r * TILE + n] = s;
    }
    workgroupBarrier();
    for (var n = 0u; n < TILE; n += 1u) {
      let s = vec4<f32>(d_score[own.r * TILE + n]);
      for (var i = 0u; i < HELD; i += 1u) { sums[i] = fma(s, stream[n * WIDE + own.j + i * LANES], sums[i]); }
    }
  }
  if !own.live { return; }
  for (var i = 0u; i < HELD; i += 1u) {
    for (var c = 0u; c < 4u; c += 1u) {
      let d = (own.j + i * LANES) * 4u + c;
      if d >= p.dim { continue; }
      let at = q_at(block, own.row) + d;
      var v = sums[i][c] * p.scale;
      if p.first == 0u { v += load_d_q(at); }
      store_d_q(at, v);
    }
  }
}
