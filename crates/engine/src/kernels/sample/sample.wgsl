// Integers of 64 bits are (low, high).
var<workgroup> low: array<atomic<u32>, 256>;
var<workgroup> upper: array<atomic<u32>, 256>;
var<workgroup> largest: array<f32, THREADS>;
var<workgroup> first_nan: atomic<u32>;
var<workgroup> found: array<u32, 3>;

fn wide(a: u32, b: u32) -> vec2<u32> { return vec2(a * b, high(a, b)); }
fn plus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let sum = a.x + b.x;
  return vec2(sum, a.y + b.y + u32(sum < a.x));
}
fn minus(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2(a.x - b.x, a.y - b.y - u32(a.x < b.x));
}
fn less(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }
// a · b / 2^32, rounded down; the result must be below 2^64.
fn scaled(a: vec2<u32>, b: u32) -> vec2<u32> {
  return plus(wide(a.y, b), vec2(high(a.x, b), 0u));
}
// a · b / 2^64, rounded down.
fn scaled_twice(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let middle = plus(wide(a.y, b.x), vec2(high(a.x, b.x), 0u));
  let other = plus(wide(a.x, b.y), vec2(middle.x, 0u));
  return plus(wide(a.y, b.y), plus(vec2(middle.y, 0u), vec2(other.y, 0u)));
}

fn distance(at: u32, top: f32, row: Row) -> u32 {
  let s = score(at, row);
  if s == top { return 0u; }
  let d = (top - s) * row.steps;
  // Distances that are too large, and NaN, become the largest.
  return select(0xffffffffu, u32(min(d, 4294967040.0)), d < 4294967040.0);
}
fn weight(d: u32) -> u32 {
  let e = wide(d, LOG2_E);
  let n = e.y >> 23u;
  if n > 31u { return 0u; }
  let f = (e.y << 9u) | (e.x >> 23u);
  var t = EXP2_4 - high(EXP2_5, f);
  t = EXP2_3 - high(t, f);
  t = EXP2_2 - high(t, f);
  t = EXP2_1 - high(t, f);
  t = EXP2_0 - high(t, f);
  return (0x80000000u - (high(t, f) >> 1u)) >> n;
}

// The least distance that includes `need` tokens, or, with `by_weight`, the share `top_p` of the weight of the tokens
// up to `limit`. Found digit by digit, highest first.
fn threshold(base: u32, lane: u32, top: f32, limit: u32, by_weight: bool, row: Row) -> u32 {
  var prefix = 0u;
  var need = vec2(row.top_k, 0u);
  for (var turn = 0u; turn < 4u; turn += 1u) {
    let shift = 24u - 8u * turn;
    for (var b = lane; b < 256u; b += THREADS) {
      atomicStore(&low[b], 0u);
      atomicStore(&upper[b], 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < p.n; i += THREADS) {
      let d = distance(base + i, top, row);
      if d > limit || ((d ^ prefix) >> shift) > 255u { continue; }
      var w = 1u;
      if by_weight { w = weight(d); }
      let b = (d >> shift) & 255u;
      let before = atomicAdd(&low[b], w);
      if before + w < before { atomicAdd(&upper[b], 1u); }
    }
    workgroupBarrier();
    if lane == 0u {
      if by_weight && turn == 0u {
        var sum = vec2(0u, 0u);
        for (var b = 0u; b < 256u; b += 1u) { sum = plus(sum, vec2(atomicLoad(&low[b]), atomicLoad(&upper[b]))); }
        need = scaled(sum, row.top_p);
        if need.x == 0u && need.y == 0u { need.x = 1u; }
      }
      var b = 0u;
      for (; b < 255u; b += 1u) {
        let w = vec2(atomicLoad(&low[b]), atomicLoad(&upper[b]));
        if !less(w, need) { break; }
        need = minus(need, w);
      }
      found[0] = b;
      found[1] = need.x;
      found[2] = need.y;
    }
    workgroupBarrier();
    prefix |= found[0] << shift;
    need = vec2(found[1], found[2]);
  }
  return prefix;
}

fn kernel(group: u32, lane: u32) {
  let base = group * p.n;
  let row = row_of(group);
  if lane == 0u { atomicStore(&first_nan, p.n); }
  workgroupBarrier();
  var own = score(base + min(lane, p.n - 1u), row);
  for (var i = lane; i < p.n; i += THREADS) {
    let v = score(base + i, row);
    if is_nan(v) { atomicMin(&first_nan, i); }
    own = max(own, v);
  }
  largest[lane] = own;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { largest[lane] = max(largest[lane], largest[lane + half]); }
    workgroupBarrier();
  }
  let top = largest[0];
  var limit = 0xffffffffu;
  if row.top_k > 0u { limit = threshold(base, lane, top, limit, false, row); }
  if row.top_p > 0u { limit = min(limit, threshold(base, lane, top, limit, true, row)); }
  limit = min(limit, row.farthest);

  var start = 0u;
  var end = p.n;
  var wanted = vec2(0u, 0u);
  for (var round = 0u; round < 3u; round += 1u) {
    let span = (end - start + THREADS - 1u) / THREADS;
    var sum = vec2(0u, 0u);
    for (var k = 0u; k < span; k += 1u) {
      let i = start + lane * span + k;
      if i >= end { break; }
      let d = distance(base + i, top, row);
      if d <= limit { sum = plus(sum, vec2(weight(d), 0u)); }
    }
    atomicStore(&low[lane], sum.x);
    atomicStore(&upper[lane], sum.y);
    workgroupBarrier();
    if lane == 0u {
      if round == 0u {
        var all = vec2(0u, 0u);
        for (var l = 0u; l < THREADS; l += 1u) { all = plus(all, vec2(atomicLoad(&low[l]), atomicLoad(&upper[l]))); }
        wanted = scaled_twice(all, row.random);
      }
      var l = 0u;
      for (; l + 1u < THREADS; l += 1u) {
        let w = vec2(atomicLoad(&low[l]), atomicLoad(&upper[l]));
        if less(wanted, w) { break; }
        wanted = minus(wanted, w);
      }
      found[0] = l;
    }
    workgroupBarrier();
    start = min(start + found[0] * span, end - 1u);
    end = min(start + span, end);
    workgroupBarrier();
  }
  if lane == 0u {
    let nan_at = atomicLoad(&first_nan);
    var bad = -1;
    if nan_at < p.n {
      bad = i32(nan_at);
      start = nan_at;
    } else if bitcast<u32>(top) == 0xff800000u {
      bad = i32(p.n);
      start = 0u;
    }
    store_token(group, i32(start));
    store_bad(group, bad);
    see(base + start);
  }
}
