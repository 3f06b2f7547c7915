// Who sees whom, and what stands for a score that is hidden.
const HIDDEN = -3.4e38;
const FLOOR = -1.0e38;
// A visible score never looks hidden.
const LOWEST = -3.3e38;

fn sees(b: u32, t: u32, key: u32) -> bool {
  if CAUSAL {
    let query_at = p.query_at + t;
    let key_at = p.key_at + key;
    if key_at > query_at || query_at - key_at >= p.window { return false; }
  }
  if SEGMENTS {
    let at = b * p.segment_batch;
    if load_query_segment(at + t) != load_key_segment(at + key) { return false; }
  }
  if MASK && load_mask(b * p.mask_batch + key) == 0 { return false; }
  return true;
}
// Keys of this window that row t sees by position.
fn first_key(t: u32) -> u32 {
  if !CAUSAL { return 0u; }
  let end = p.query_at + t + 1u;
  let begin = end - min(end, p.window);
  return min(begin - min(begin, p.key_at), p.keys);
}
fn end_key(t: u32) -> u32 {
  if !CAUSAL { return p.keys; }
  let end = p.query_at + t + 1u;
  return min(end - min(end, p.key_at), p.keys);
}
// exp(s − lse); NaN for NaN, which exp does not promise.
fn weight(s: f32, lse: f32) -> f32 {
  if is_nan(s) || is_nan(lse) { return nan(); }
  return exp(s - lse);
}
