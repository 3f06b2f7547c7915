// Of a tile: its side, its scores, and what its rows and keys are.
const TILE = 32u;
const WORDS = TILE / 2u;
var<workgroup> score: array<u64, TILE * WORDS>;

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

// Whether `rows` queries from t see all of `count` keys from `begin`.
fn all_seen(t: u32, rows: u32, begin: u32, count: u32) -> bool {
  if SEGMENTS || MASK { return false; }
  return first_key(t + rows - 1u) <= begin && end_key(t) >= begin + count;
}

fn word(x: f32, y: f32) -> u64 { return u64(bitcast<u32>(x)) | (u64(bitcast<u32>(y)) << 32u); }
