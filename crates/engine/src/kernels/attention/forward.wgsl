// o and log Σ exp S: ROWS query rows stay, tiles of keys and then of their values pass by.
// Cost: 4·T·S·D flops a head; Q is read once, K and V once for every ROWS query rows.
var<workgroup> queries: array<vec4<f32>, ROWS * WIDE>;
var<workgroup> score: array<f32, ROWS * TILE>;

fn kernel(group: u32, lane: u32) {
  let rows = p.queries * p.group_heads;
  let block = block_of(group, rows);
  let own = own_of(lane, block.first, rows);
  let t = own.row / p.group_heads;

  for (var i = lane; i < ROWS * WIDE; i += THREADS) { queries[i] = tile_q(block, block.first, rows, i); }
  var sums: array<vec4<f32>, HELD>;
  for (var i = 0u; i < HELD; i += 1u) { sums[i] = vec4<f32>(); }
  var top = FLOOR;
  var sum = 0.0;
  var bad = false;
  var seen = false;
  if own.live && p.first == 0u {
    let before = load_lse(lse_at(block, own.row));
    bad = is_nan(before);
    if !bad && before >= FLOOR {
      top = before;
      sum = 1.0;
      for (var i = 0u; i < HELD; i += 1u) { sums[i] = tile_o(block, own.row, rows, own.j + i * LANES); }
    }
  }
  let end = end_key(block.last / p.group_heads);
  for (var begin = first_key(block.first / p.group_heads); begin < end; begin += TILE) {
    workgroupBarrier();
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_k(block, begin, end, i); }
    workgroupBarrier();
    for (var n = own.j; n < TILE; n += LANES) {
      var s = HIDDEN;
      if own.live && begin + n < end && sees(block.b, t, begin + n) {
        s = 0.0;
        for (var d = 0u; d < WIDE; d += 1u) { s += dot(queries[own.r * WIDE + d], stream[n * WIDE + d]); }
        if !is_nan(s) { s = max(s, LOWEST); }
      }
      score[own.r * TILE + n] = s;
    }
    workgroupBarrier();
    var highest = top;
    for (var n = 0u; n < TILE; n += 1u) {
      let s = score[own.r * TILE + n];
      // NaN, and infinity less infinity.
      if is_nan(s) || s > 3.4e38 { bad = true; } else { highest = max(highest, s); }
      seen = seen || is_nan(s) || s != HIDDEN;
    }
    for (var i = lane; i < TILE * WIDE; i += THREADS) { stream[i] = tile_v(block, begin, end, i); }
    workgroupBarrier();
    for (var n = own.j; n < TILE; n += LANES) {
      let s = score[own.r * TILE + n];
      // Hidden weights are told from those that are 0: what they weigh is not looked at.
      score[own.r * TILE + n] = select(-1.0, exp(s - highest), s != HIDDEN);
    }
    workgroupBarrier();
    let factor = exp(top - highest);
    top = highest;
    sum *= factor;
    for (var i = 0u; i < HELD; i += 1u) { sums[i] *= factor; }
    for (var n = 0u; n < TILE; n += 1u) {
      let weight = score[own.r * TILE + n];
      if weight < 0.0 { continue; }
      sum += weight;
      for (var i = 0u; i < HELD; i += 1u) {
        sums[i] = fma(vec4<f32>(weight), stream[n * WIDE + own.j + i * LANES], sums[i]);
      }
    }
  }
  if !own.live { return; }
  bad = bad || (seen && sum == 0.0);
  var scale = 0.0;
  if sum != 0.0 { scale = 1.0 / sum; }
  for (var i = 0u; i < HELD; i += 1u) {
    for (var c = 0u; c < 4u; c += 1u) {
      let d = (own.j + i * LANES) * 4u + c;
      if d < p.dim { store_o(q_at(block, own.row) + d, select(sums[i][c] * scale, nan(), bad)); }
    }
  }
  if own.j == 0u {
    var total = HIDDEN;
    if sum != 0.0 { total = top + log(sum); }
    store_lse(lse_at(block, own.row), select(total, nan(), bad));
  }
}
