var<workgroup> keys: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> values: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> stream: array<vec4<f32>, TILE * WIDE>;
var<workgroup> score: array<f32, ROWS * TILE>;
var<workgroup> d_score: array<f32, ROWS * TILE>;

fn kernel(group: u32, lane: u32) {
  let rows = p.queries * p.group_heads;
  let blocks = (p.keys + ROWS - 1u) / ROWS;
  let block = group % blocks;
  let head = (group / blocks) % p.kv_heads;
  let b = group / blocks / p.kv_heads;
  let first_key = block * ROWS;
  let last_key = min(first_key + ROWS, p.keys) - 1u;
  let r = lane / LANES;
  let j = lane % LANES;
  let key = first_key + r;
  let live = key < p.keys;

  for (var i = lane; i < ROWS * WIDE; i += THREADS) {
    let own = first_key + i / WIDE;
    keys[i] = vec4<f32>();
    values[i] = vec4<f32>();
    if own < p.keys {
      keys[i] = wide_k(kv_at(b, head, own), (i % WIDE) * 4u);
      values[i] = wide_v(kv_at(b, head, own), (i % WIDE) * 4u);
    }
  }
  var d_keys: array<vec4<f32>, HELD>;
  var d_values: array<vec4<f32>, HELD>;
  for (var i = 0u; i < HELD; i += 1u) { d_keys[i] = vec4<f32>(); d_values[i] = vec4<f32>(); }
  // Query rows that see any of these keys by position.
  var start = 0u;
  var end = rows;
  if CAUSAL {
    let first = p.key_at + first_key;
    let past = p.key_at + last_key + p.window;
    start = min(first - min(first, p.query_at), p.queries) * p.group_heads;
    end = min(past - min(past, p.query_at), p.queries) * p.group_heads;
  }
  for (var begin = start; begin < end; begin += TILE) {
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let row = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if row < end { stream[i] = wide_q(q_at(b, head, row), (i % WIDE) * 4u) * p.scale; }
    }
    workgroupBarrier();
    for (var n = j; n < TILE; n += LANES) {
      let row = begin + n;
      var s = 0.0;
      if live && row < end && sees(b, row / p.group_heads, key) {
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(keys[r * WIDE + d], stream[n * WIDE + d]); }
        var lse = load_lse(lse_at(b, head, row));
        if lse < FLOOR { lse = FLOOR; }
        s = weight(s, lse);
      }
      score[r * TILE + n] = s;
    }
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let row = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if row < end { stream[i] = wide_d_o(q_at(b, head, row), (i % WIDE) * 4u); }
    }
    workgroupBarrier();
    for (var n = j; n < TILE; n += LANES) {
      var s = 0.0;
      if live && begin + n < end {
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(values[r * WIDE + d], stream[n * WIDE + d]); }
        s = score[r * TILE + n] * (s - load_delta(lse_at(b, head, begin + n)));
      }
      d_score[r * TILE + n] = s;
    }
    for (var n = 0u; n < TILE; n += 1u) {
      let s = vec4<f32>(score[r * TILE + n]);
      for (var i = 0u; i < HELD; i += 1u) { d_values[i] = fma(s, stream[n * WIDE + j + i * LANES], d_values[i]); }
    }
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let row = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if row < end { stream[i] = wide_q(q_at(b, head, row), (i % WIDE) * 4u) * p.scale; }
    }
    workgroupBarrier();
    for (var n = 0u; n < TILE; n += 1u) {
      let s = vec4<f32>(d_score[r * TILE + n]);
      for (var i = 0u; i < HELD; i += 1u) { d_keys[i] = fma(s, stream[n * WIDE + j + i * LANES], d_keys[i]); }
    }
  }
  if !live { return; }
  for (var i = 0u; i < HELD; i += 1u) {
    for (var c = 0u; c < 4u; c += 1u) {
      let d = (j + i * LANES) * 4u + c;
      if d >= p.dim { continue; }
      let at = kv_at(b, head, key) + d;
      var d_key = d_keys[i][c];
      var d_value = d_values[i][c];
      if p.first == 0u { d_key += load_d_k(at); d_value += load_d_v(at); }
      store_d_k(at, d_key);
      store_d_v(at, d_value);
    }
  }
}
