// o and log Σ exp S: 32 query rows of a head stay, tiles of keys pass by. A lane has the rows lane, lane + 8, ..

// A row so far: the highest score, the sum of weights beside it, what its sums were multiplied by for that, and
// whether a score was not finite, and any was seen.
struct Row { top: f32, sum: f32, keep: f32, bad: bool, seen: bool }

// Hidden weights are −0, which no other weight is.
const NOTHING = 0x80000000u;

fn begun(h: Head, t: u32, live: bool) -> Row {
  var row = Row(FLOOR, 0.0, 0.0, false, false);
  if live && p.first == 0u {
    let before = load_lse(lse_start(h, t));
    row.bad = is_nan(before);
    if !row.bad && before >= FLOOR {
      row.top = before;
      row.sum = 1.0;
    }
  }
  return row;
}

// Makes weights of the scores of row r, which is query t.
fn soften(h: Head, before: Row, r: u32, t: u32, begin: u32, count: u32, whole: bool) -> Row {
  var row = before;
  let at = r * WORDS;
  for (var w = 0u; w < count / 2u; w++) {
    var pair = vec2<f32>(first(score[at + w]), second(score[at + w]));
    for (var i = 0u; i < 2u; i++) {
      var s = pair[i];
      if whole || sees(h.b, t, begin + 2u * w + i) {
        row.seen = true;
        // NaN, and infinity less infinity.
        if is_nan(s) || s > 3.4e38 { row.bad = true; } else { s = max(s, LOWEST); row.top = max(row.top, s); }
      } else {
        s = HIDDEN;
      }
      pair[i] = s;
    }
    score[at + w] = word(pair.x, pair.y);
  }
  row.keep = exp(before.top - row.top);
  row.sum *= row.keep;
  for (var w = 0u; w < count / 2u; w++) {
    var pair = vec2<f32>(first(score[at + w]), second(score[at + w]));
    for (var i = 0u; i < 2u; i++) {
      let weight = select(bitcast<f32>(NOTHING), exp(pair[i] - row.top), pair[i] != HIDDEN);
      row.sum += weight;
      pair[i] = weight;
    }
    score[at + w] = word(pair.x, pair.y);
  }
  return row;
}

// Whether all values of `count` keys are finite: a hidden weight of 0 would make NaN of one that is not.
fn all_finite(h: Head, begin: u32, count: u32, lane: u32) -> bool {
  var found = false;
  let wide = p.dim / 2u;
  for (var i = lane; i < count * wide; i += THREADS) {
    let pair = v_words[(p.v_at + key_start(h, begin + i / wide)) / 2u + i % wide];
    found = found || !is_finite(first(pair)) || !is_finite(second(pair));
  }
  return !subgroupAny(found);
}

// Row r of o without what is hidden, an element at a time.
fn apart(h: Head, row: Row, r: u32, t: u32, begin: u32, count: u32, began: bool) {
  let o_start = (p.o_at + query_start(h, t)) / 2u;
  let v_start = (p.v_at + key_start(h, begin)) / 2u;
  for (var d = 0u; d < p.dim / 2u; d++) {
    var sum = vec2<f32>();
    if began { sum = row.keep * vec2<f32>(first(o_words[o_start + d]), second(o_words[o_start + d])); }
    for (var key = 0u; key < count; key++) {
      let pair = score[r * WORDS + key / 2u];
      let weight = select(first(pair), second(pair), key % 2u == 1u);
      if bitcast<u32>(weight) == NOTHING { continue; }
      let value = v_words[v_start + key * (p.kv_row / 2u) + d];
      sum = fma(vec2<f32>(weight), vec2<f32>(first(value), second(value)), sum);
    }
    o_words[o_start + d] = word(sum.x, sum.y);
  }
}

// o in the place of its sums, and the log-sum-exp.
fn finish(h: Head, row: Row, t: u32, began: bool) {
  let bad = row.bad || (row.seen && row.sum == 0.0);
  var scale = 0.0;
  var total = HIDDEN;
  if row.sum != 0.0 {
    scale = 1.0 / row.sum;
    total = row.top + log(row.sum);
  }
  let o_start = (p.o_at + query_start(h, t)) / 2u;
  for (var d = 0u; d < p.dim / 2u; d++) {
    var pair = vec2<f32>();
    if began && scale != 0.0 { pair = scale * vec2<f32>(first(o_words[o_start + d]), second(o_words[o_start + d])); }
    if bad { pair = vec2<f32>(nan()); }
    o_words[o_start + d] = word(pair.x, pair.y);
  }
  store_lse(lse_start(h, t), select(total, nan(), bad));
}

fn kernel(group: u32, lane: u32) {
  let blocks = (p.queries + TILE - 1u) / TILE;
  let t = group % blocks * TILE;
  let h = head_of(group / blocks);
  let rows = min(TILE, p.queries - t);
  let q_start = p.q_at + query_start(h, t);
  let o_start = p.o_at + query_start(h, t);
  var row0 = begun(h, t + lane, lane < rows);
  var row1 = begun(h, t + lane + 8u, lane + 8u < rows);
  var row2 = begun(h, t + lane + 16u, lane + 16u < rows);
  var row3 = begun(h, t + lane + 24u, lane + 24u < rows);
  var began = p.first == 0u;
  let end = end_key(t + rows - 1u);
  // Keys come in pairs; what a window leaves out of the first one is hidden.
  for (var begin = first_key(t) / 2u * 2u; begin < end; begin += TILE) {
    let count = min(TILE, p.keys - begin);
    let whole = all_seen(t, rows, begin, count);
    let k_start = p.k_at + key_start(h, begin);
    let v_start = p.v_at + key_start(h, begin);
    SCORES
    workgroupBarrier();
    if lane < rows { row0 = soften(h, row0, lane, t + lane, begin, count, whole); }
    if lane + 8u < rows { row1 = soften(h, row1, lane + 8u, t + lane + 8u, begin, count, whole); }
    if lane + 16u < rows { row2 = soften(h, row2, lane + 16u, t + lane + 16u, begin, count, whole); }
    if lane + 24u < rows { row3 = soften(h, row3, lane + 24u, t + lane + 24u, begin, count, whole); }
    workgroupBarrier();
    let keep = vec4<f32>(row0.keep, row1.keep, row2.keep, row3.keep);
    if whole || all_finite(h, begin, count, lane) {
      OUTPUTS
    } else {
      if lane < rows { apart(h, row0, lane, t + lane, begin, count, began); }
      if lane + 8u < rows { apart(h, row1, lane + 8u, t + lane + 8u, begin, count, began); }
      if lane + 16u < rows { apart(h, row2, lane + 16u, t + lane + 16u, begin, count, began); }
      if lane + 24u < rows { apart(h, row3, lane + 24u, t + lane + 24u, begin, count, began); }
    }
    began = true;
    storageBarrier();
    workgroupBarrier();
  }
  if lane < rows { finish(h, row0, t + lane, began); }
  if lane + 8u < rows { finish(h, row1, t + lane + 8u, began); }
  if lane + 16u < rows { finish(h, row2, t + lane + 16u, began); }
  if lane + 24u < rows { finish(h, row3, t + lane + 24u, began); }
}
