// o and log Σ exp S: query rows of a head stay, tiles of keys pass by.

// A score that was NaN or infinite.
const BROKEN = 3.4028234e38;

// Score s as it is looked at: HIDDEN, BROKEN, or not below LOWEST.
fn looked_at(s: f32, visible: bool) -> f32 {
  let bits = bitcast<u32>(s);
  let broken = ((bits & 0x7fffffffu) > 0x7f7ffffeu) & ((bits < 0xff7fffffu) | (bits > 0xff800000u));
  return select(HIDDEN, select(max(s, LOWEST), BROKEN, broken), visible);
}
fn top_of(high: f32) -> f32 { return max(high, FLOOR); }
fn for_max(s: f32) -> f32 { return select(s, LOWEST, s == BROKEN); }
fn weight_of(s: f32, top: f32) -> f32 {
  return select(select(exp(s - top), nan(), s == BROKEN), 0.0, s == HIDDEN);
}

// Row t of o without what is hidden, a key after another; `total` is its log-sum-exp.
fn apart(h: Head, t: u32, total: f32) {
  let words = p.dim / WIDTH;
  let q_start = (p.q_at + query_start(h, t)) / WIDTH;
  let o_start = (p.o_at + query_start(h, t)) / WIDTH;
  var keep = 0.0;
  if p.first == 0u {
    let before = load_lse(lse_start(h, t));
    keep = select(weight(before, total), 0.0, before < FLOOR);
  }
  for (var d = 0u; d < words; d++) {
    var old = Word();
    if p.first == 0u { old = weighed(keep, o_words[o_start + d], old); }
    o_words[o_start + d] = old;
  }
  let end = end_key(t);
  for (var key = first_key(t); key < end; key++) {
    if !sees(h.b, t, key) { continue; }
    let k_start = (p.k_at + key_start(h, key)) / WIDTH;
    let v_start = (p.v_at + key_start(h, key)) / WIDTH;
    var s = 0.0;
    for (var d = 0u; d < words; d++) { s = dot_of(q_words[q_start + d], k_words[k_start + d], s); }
    let w = weight(max(p.scale * s, LOWEST), total);
    for (var d = 0u; d < words; d++) {
      o_words[o_start + d] = weighed(w, v_words[v_start + d], o_words[o_start + d]);
    }
  }
  store_lse(lse_start(h, t), total);
}

fn kernel(group: u32, lane: u32) {
  let blocks = (p.queries + ROWS - 1u) / ROWS;
  let t = group % blocks * ROWS;
  let h = head_of(group / blocks);
  let last = p.queries - 1u;
  let words = p.dim / WIDTH;
  let scale = p.scale;
  // The highest bits of a value that was read.
  var found = 0u;
QUERIES
STATE
  let end = end_key(min(t + ROWS - 1u, last));
  for (var begin = first_key(t); begin < end; begin += TILE) {
    let count = min(TILE, p.keys - begin);
KEYS
SCORES
SOFTEN
OUTPUTS
  }
FINISH
}
