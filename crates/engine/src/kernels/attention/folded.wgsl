// Labels in backward: all labels of a key in one binding; a query's label is stored with its log-sum-exp.
fn label_step() -> u32 { return select(1u, 2u, (p.flags & (SEGMENTS | MASK)) == (SEGMENTS | MASK)); }
fn key_label(b: u32, key: u32) -> i32 {
  var label = 0;
  if (p.flags & SEGMENTS) != 0u { label = load_labels(b * p.segment_batch + key * label_step()); }
  return label;
}
fn key_hidden(b: u32, key: u32) -> bool {
  var hidden = false;
  if (p.flags & MASK) != 0u { hidden = load_labels(b * p.mask_batch + (key + 1u) * label_step() - 1u) == 0; }
  return hidden;
}
fn lse_of(at: u32) -> f32 { return bitcast<f32>(load_rows(at * 3u)); }
fn delta_of(at: u32) -> f32 { return bitcast<f32>(load_rows(at * 3u + 1u)); }
fn label_of(at: u32) -> i32 { return load_rows(at * 3u + 2u); }

// e^(s − lse) where visible, else 0; NaN for NaN, which exp does not guarantee.
fn weights(s: vec4<f32>, lse: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
  let off = s - lse;
  let w = select(exp(off), vec4<f32>(nan()), nans4(off) | nans4(s) | nans4(lse));
  return select(vec4<f32>(), w, seen);
}
