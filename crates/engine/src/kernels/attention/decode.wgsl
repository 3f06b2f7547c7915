// Few query rows against a part of the keys, as in decoding: K and V are read once, in vectors.
// In steps of CHUNK keys: first the scores, one key and row per invocation, with K in workgroup memory. Then each
// invocation sums one vector of every PHASES-th value, directly from memory, and the phases are added at the end.
const D4 = DIM / 4u;
const CHUNK = 64u;
const PHASES = THREADS / D4;
// Invocations that share a row's maximum and sum, and the number of scores for each of them.
const EACH = THREADS / ROWS;
const HELD = CHUNK / EACH;

var<workgroup> queries: array<vec4<f32>, ROWS * D4>;
var<workgroup> keys: array<vec4<f32>, TILE * (D4 + 1u)>;
var<workgroup> score: array<f32, ROWS * CHUNK>;
var<workgroup> stats: array<f32, THREADS>;
var<workgroup> factors: array<f32, ROWS>;
var<workgroup> row_marks: array<atomic<u32>, ROWS>;

fn kernel(group: u32, lane: u32) {
  let rows = p.queries * p.group;
  let parts = p.groups / (p.batch * p.kv_heads);
  let pair = group / parts;
  let part = group % parts;
  let block = Block(pair / p.kv_heads, pair % p.kv_heads, 0u, rows - 1u);
  let begin = first_key(0u) + part * p.split;
  let end = min(begin + p.split, end_key(p.queries - 1u));

  for (var i = lane; i < ROWS * D4; i += THREADS) { queries[i] = q4(query_place(block, i / D4, rows), i % D4); }
  if lane < ROWS { atomicStore(&row_marks[lane], 0u); }
  // The row whose maximum and sum this invocation computes, together with EACH − 1 others.
  let own = lane / EACH;
  let j = lane % EACH;
  var top = FLOOR;
  var sum = 0.0;
  var marks = 0u;
  // The vector that this invocation sums, and its first key.
  let c = lane % D4;
  let phase = lane / D4;
DECLARE
  for (var chunk = begin; chunk < end; chunk += CHUNK) {
    for (var tile = 0u; tile < CHUNK; tile += TILE) {
      workgroupBarrier();
      for (var i = lane; i < TILE * D4; i += THREADS) {
        keys[i / D4 * (D4 + 1u) + i % D4] = k4(key_place(block, chunk + tile + i / D4, end), i % D4);
      }
      workgroupBarrier();
      for (var i = lane; i < ROWS * TILE; i += THREADS) {
        let n = i % TILE;
        let r = i / TILE;
        let key = chunk + tile + n;
        var s = HIDDEN;
        if r < rows && key < end {
          let t = r / p.group;
          let row_mask = row_mask_at(t, query_label(block.b, t));
          let at = position(block, key, end);
          if at >= row_mask.first && at <= row_mask.last && key_label(block.b, key) == row_mask.label {
            var sums = vec4<f32>();
            for (var d = 0u; d < D4; d += 1u) { sums = fma(queries[r * D4 + d], keys[n * (D4 + 1u) + d], sums); }
            s = across(sums);
            if !is_nan(s) { s = max(s, LOWEST); }
          }
        }
        score[r * CHUNK + tile + n] = s;
      }
    }
    workgroupBarrier();
    var most = top;
    for (var k = 0u; k < HELD; k += 1u) {
      let s = score[own * CHUNK + j + k * EACH];
      // NaN, and infinity less infinity.
      if is_nan(s) || s > 3.4e38 { marks |= 2u; } else { most = max(most, s); }
      marks |= u32(is_nan(s) || s != HIDDEN);
    }
    stats[lane] = most;
    workgroupBarrier();
    for (var k = 0u; k < EACH; k += 1u) { most = max(most, stats[own * EACH + k]); }
    let factor = exp(top - most);
    top = most;
    sum *= factor;
    for (var k = 0u; k < HELD; k += 1u) {
      let at = own * CHUNK + j + k * EACH;
      let s = score[at];
      // A negative weight marks a hidden key, to distinguish it from a weight of 0: its value is not read.
      var weight = -1.0;
      if is_nan(s) || s != HIDDEN { weight = exp(s - most); sum += weight; }
      score[at] = weight;
    }
    if j == 0u { factors[own] = factor; }
    workgroupBarrier();
RESCALE
    for (var n = phase; n < CHUNK && chunk + n < end; n += PHASES) {
      let v = v4(key_place(block, chunk + n, end), c);
ADD
    }
  }
  workgroupBarrier();
  stats[lane] = sum;
  if j == 0u { factors[own] = top; }
  atomicOr(&row_marks[own], marks);
FINISH
}
// Writes row r from the phases' sums in `keys`; uses the first D4 invocations.
fn finish(block: Block, part: u32, r: u32, lane: u32) {
  if lane < D4 && r < p.queries * p.group { finish_row(block, part, r, lane); }
}
fn finish_row(block: Block, part: u32, r: u32, lane: u32) {
  var o = keys[lane];
  for (var k = 1u; k < PHASES; k += 1u) { o += keys[k * D4 + lane]; }
  var sum = 0.0;
  for (var k = 0u; k < EACH; k += 1u) { sum += stats[r * EACH + k]; }
  let marks = atomicLoad(&row_marks[r]);
  var scale = 0.0;
  if sum != 0.0 { scale = 1.0 / sum; }
  o *= scale;
  // If all weights are 0 the result is undefined, unless another part has larger ones.
  let bad = (marks & 2u) != 0u || is_nan(sum) || (marks == 1u && sum == 0.0 && p.groups == p.batch * p.kv_heads);
  if bad { o = vec4<f32>(nan()); }
  if lane < p.dim / 4u { store4_o((part * p.batch * p.q_batch + query_place(block, r, NOWHERE)) / 4u + lane, o); }
  if lane == 0u {
    var total = select(HIDDEN, LOWEST, marks == 1u);
    if sum != 0.0 { total = factors[r] + log(sum); }
    if bad { total = nan(); }
    store_lse(part * p.batch * (p.q_batch / p.dim) + lse_at(block, r), total);
  }
}
