var<workgroup> queries: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> stream: array<vec4<f32>, TILE * WIDE>;
var<workgroup> score: array<f32, ROWS * TILE>;

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
    if own < rows { queries[i] = wide_q(q_at(b, head, own), (i % WIDE) * 4u) * p.scale; }
  }
  var sums: array<vec4<f32>, HELD>;
  for (var i = 0u; i < HELD; i += 1u) { sums[i] = vec4<f32>(); }
  var top = FLOOR;
  var sum = 0.0;
  var bad = false;
  var seen = false;
  if live && p.first == 0u {
    let before = load_lse(lse_at(b, head, row));
    bad = is_nan(before);
    if !bad && before >= FLOOR {
      top = before;
      sum = 1.0;
      for (var i = 0u; i < HELD; i += 1u) { sums[i] = wide_o(q_at(b, head, row), (j + i * LANES) * 4u); }
    }
  }
  let end = end_key(last_row / p.group_heads);
  for (var begin = first_key(first_row / p.group_heads); begin < end; begin += TILE) {
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let key = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if key < end { stream[i] = wide_k(kv_at(b, head, key), (i % WIDE) * 4u); }
    }
    workgroupBarrier();
    for (var n = j; n < TILE; n += LANES) {
      var s = HIDDEN;
      if live && begin + n < end && sees(b, t, begin + n) {
        s = 0.0;
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(queries[r * WIDE + d], stream[n * WIDE + d]); }
        if !is_nan(s) { s = max(s, LOWEST); }
      }
      score[r * TILE + n] = s;
    }
    workgroupBarrier();
    var highest = top;
    for (var n = 0u; n < TILE; n += 1u) {
      let s = score[r * TILE + n];
      // NaN, and infinity less infinity.
      if is_nan(s) || s > 3.4e38 { bad = true; } else { highest = max(highest, s); }
      seen = seen || is_nan(s) || s != HIDDEN;
    }
    for (var i = lane; i < TILE * WIDE; i += THREADS) {
      let key = begin + i / WIDE;
      stream[i] = vec4<f32>();
      if key < end { stream[i] = wide_v(kv_at(b, head, key), (i % WIDE) * 4u); }
    }
    workgroupBarrier();
    for (var n = j; n < TILE; n += LANES) {
      let s = score[r * TILE + n];
      // Hidden weights are told from those that are 0: what they weigh is not looked at.
      score[r * TILE + n] = select(-1.0, exp(s - highest), s != HIDDEN);
    }
    workgroupBarrier();
    let factor = exp(top - highest);
    top = highest;
    sum *= factor;
    for (var i = 0u; i < HELD; i += 1u) { sums[i] *= factor; }
    for (var n = 0u; n < TILE; n += 1u) {
      let weight = score[r * TILE + n];
      if weight < 0.0 { continue; }
      sum += weight;
      for (var i = 0u; i < HELD; i += 1u) {
        sums[i] = fma(vec4<f32>(weight), stream[n * WIDE + j + i * LANES], sums[i]);
      }
    }
  }
  if !live { return; }
  bad = bad || (seen && sum == 0.0);
  var scale = 0.0;
  if sum != 0.0 { scale = 1.0 / sum; }
  for (var i = 0u; i < HELD; i += 1u) {
    for (var c = 0u; c < 4u; c += 1u) {
      let d = (j + i * LANES) * 4u + c;
      if d < p.dim { store_o(q_at(b, head, row) + d, select(sums[i][c] * scale, nan(), bad)); }
    }
  }
  if j == 0u {
    var total = HIDDEN;
    if sum != 0.0 { total = top + log(sum); }
    store_lse(lse_at(b, head, row), select(total, nan(), bad));
  }
}
