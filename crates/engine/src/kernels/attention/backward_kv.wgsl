// dk = scale · Σ dSᵀ q, dv = Σ Pᵀ do: ROWS keys and values stay, tiles of q, of do, and of q again pass by.
// Cost: 8·T·S·D flops a head.
var<workgroup> keys: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> values: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> score: array<f32, ROWS * TILE>;
var<workgroup> d_score: array<f32, ROWS * TILE>;

fn kernel(group: u32, lane: u32) {
  let rows = p.queries * p.group_heads;
  let block = block_of(group, p.keys);
  let own = own_of(lane, block.first, p.keys);

  for (var i = lane; i < ROWS * WIDE; i += THREADS) {
    keys[i] = tile_k(block, block.first, p.keys, i);
    values[i] = tile_v(block, block.first, p.keys, i);
  }
  var d_keys: array<vec4<f32>, HELD>;
  var d_values: array<vec4<f32>, HELD>;
  for (var i = 0u; i < HELD; i += 1u) { d_keys[i] = vec4<f32>(); d_values[i] = vec4<f32>(); }
  // Query rows that see any of these keys by position.
  var start = 0u;
  var end = rows;
  if CAUSAL {
    let since = p.key_at + block.first;
    let past = p.key_at + block.last + p.window;
    start = min(since - min(since, p.query_at), p.queries) * p.group_heads;
    end = min(past - min(past, p.query_at), p.queries) * p.group_heads;
  }
  for (var begin = start; begin < end; begin += TILE) {
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_q(block, begin, end, i); }
    workgroupBarrier();
    for (var n = own.j; n < TILE; n += LANES) {
      let row = begin + n;
      var s = 0.0;
      if own.live && row < end && sees(block.b, row / p.group_heads, own.row) {
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(keys[own.r * WIDE + d], stream[n * WIDE + d]); }
        var lse = load_lse(lse_at(block, row));
        if lse < FLOOR { lse = FLOOR; }
        s = weight(s, lse);
      }
      score[own.r * TILE + n] = s;
    }
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_d_o(block, begin, end, i); }
    workgroupBarrier();
    for (var n = own.j; n < TILE; n += LANES) {
      var s = 0.0;
      if own.live && begin + n < end {
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(values[own.r * WIDE + d], stream[n * WIDE + d]); }
        s = score[own.r * TILE + n] * (s - load_delta(lse_at(block, begin + n)));
      }
      d_score[own.r * TILE + n] = s;
    }
    for (var n = 0u; n < TILE; n += 1u) {
      let s = vec4<f32>(score[own.r * TILE + n]);
      for (var i = 0u; i < HELD; i += 1u) { d_values[i] = fma(s, stream[n * WIDE + own.j + i * LANES], d_values[i]); }
    }
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_q(block, begin, end, i); }
    workgroupBarrier();
    for (var n = 0u; n < TILE; n += 1u) {
      let s = vec4<f32>(d_score[own.r * TILE + n]);
      for (var i = 0u; i < HELD; i += 1u) { d_keys[i] = fma(s, stream[n * WIDE + own.j + i * LANES], d_keys[i]); }
    }
  }
  if !own.live { return; }
  for (var i = 0u; i < HELD; i += 1u) {
    for (var c = 0u; c < 4u; c += 1u) {
      let d = (own.j + i * LANES) * 4u + c;
      if d >= p.dim { continue; }
      let at = kv_at(block, own.row) + d;
      var d_key = d_keys[i][c];
      var d_value = d_values[i][c];
      if p.first == 0u { d_key += load_d_k(at); d_value += load_d_v(at); }
      store_d_k(at, d_key);
      store_d_v(at, d_value);
    }
  }
}
