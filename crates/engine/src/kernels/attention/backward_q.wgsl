var<workgroup> queries: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> d_outs: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> stream: array<vec4<f32>, TILE * WIDE>;
var<workgroup> d_score: array<f32, ROWS * TILE>;

fn kernel(group: u32, lane: u32) {
  let rows = p.queries * p.group_heads;
  let blocks = (rows + ROWS - 1u) / ROWS;
  let block = group % blocks;
  let head = (group / blocks) % p.kv_heads;
  let b = group / blocks / p.kv_heads;
  let first_row = block * ROWS;
  let last_row = min(first_row + ROWS, rows) - 1u;
  let r = lane / LANES;
  let j = lane % LANES;
  let row = first_row + r;
  let live = row < rows;
  let t = row / p.group_heads;

  for (var i = lane; i < ROWS * WIDE; i += THREADS) {
    let own = first_row + i / WIDE;
    queries[i] = vec4<f32>();
    d_outs[i] = vec4<f32>();
    if own < rows {
      queries[i] = wide_q(q_at(b, head, own), (i % WIDE) * 4u) * p.scale;
      d_outs[i] = wide_d_o(q_at(b, head, own), (i % WIDE) * 4u);
    }
  }
  var lse = 0.0;
  var delta = 0.0;
  if live {
    lse = load_lse(lse_at(b, head, row));
    delta = load_delta(lse_at(b, head, row));
    if lse < FLOOR { lse = FLOOR; }
  }
  var sums: array<vec4<f32>, HELD>;
  for (var i = 0u; i < HELD; i += 1u) { sums[i] = vec4<f32>(); }
  let end = end_key(last_row / p.group_heads);
  for (var begin = first_key(first_row / p.group_heads); begin < end; begin += TILE) {
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let key = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if key < end { stream[i] = wide_v(kv_at(b, head, key), (i % WIDE) * 4u); }
    }
    workgroupBarrier();
    for (var n = j; n < TILE; n += LANES) {
      var s = 0.0;
      for (var d = 0u; d < WIDE; d += 1u) { s += dot(d_outs[r * WIDE + d], stream[n * WIDE + d]); }
      d_score[r * TILE + n] = s - delta;
    }
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let key = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if key < end { stream[i] = wide_k(kv_at(b, head, key), (i % WIDE) * 4u); }
    }
    workgroupBarrier();
    for (var n = j; n < TILE; n += LANES) {
      var s = 0.0;
      if live && begin + n < end && sees(b, t, begin + n) {
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(queries[r * WIDE + d], stream[n * WIDE + d]); }
        s = weight(s, lse) * d_score[r * TILE + n];
      }
      d_score[r * TILE + n] = s;
    }
    workgroupBarrier();
    for (var n = 0u; n < TILE; n += 1u) {
      let s = vec4<f32>(d_score[r * TILE + n]);
      for (var i = 0u; i < HELD; i += 1u) { sums[i] = fma(s, stream[n * WIDE + j + i * LANES], sums[i]); }
    }
  }
  if !live { return; }
  for (var i = 0u; i < HELD; i += 1u) {
    for (var c = 0u; c < 4u; c += 1u) {
      let d = (j + i * LANES) * 4u + c;
      if d >= p.dim { continue; }
      let at = q_at(b, head, row) + d;
      var v = sums[i][c] * p.scale;
      if p.first == 0u { v += load_d_q(at); }
      store_d_q(at, v);
    }
  }
}
