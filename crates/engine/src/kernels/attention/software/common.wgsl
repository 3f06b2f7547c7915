// What a workgroup is at: one batch row and query head, and the key/value head that it reads.
struct Head { b: u32, query: u32, key: u32 }
fn head_of(i: u32) -> Head {
  let heads = p.kv_heads * p.group_heads;
  return Head(i / heads, i % heads, i % heads / p.group_heads);
}
// Where query t starts in q, its log-sum-exp, and key `key` in k.
fn query_start(h: Head, t: u32) -> u32 { return h.b * p.q_batch + t * p.q_row + h.query * p.dim; }
fn lse_start(h: Head, t: u32) -> u32 { return h.b * p.lse_batch + t * p.lse_row + h.query; }
fn key_start(h: Head, key: u32) -> u32 { return h.b * p.kv_batch + key * p.kv_row + h.key * p.dim; }

fn word(x: f32, y: f32) -> u64 { return u64(bitcast<u32>(x)) | (u64(bitcast<u32>(y)) << 32u); }

// Of two rows' values over lanes: half of each, folded with the other half's. A lane whose bit is set keeps b.
fn fold_max(a: f32, b: f32, lane: u32, bit: u32) -> f32 {
  let keeps_b = (lane & bit) != 0u;
  return max(select(a, b, keeps_b), subgroupShuffle(select(b, a, keeps_b), lane ^ bit));
}
fn fold_sum(a: f32, b: f32, lane: u32, bit: u32) -> f32 {
  let keeps_b = (lane & bit) != 0u;
  return select(a, b, keeps_b) + subgroupShuffle(select(b, a, keeps_b), lane ^ bit);
}
