// Labels in forward: one binding for each kind.
fn query_label(b: u32, t: u32) -> i32 {
  var label = 0;
  if (p.flags & SEGMENTS) != 0u { label = load_query_segment(b * p.segment_batch + t); }
  return label;
}
fn key_label(b: u32, key: u32) -> i32 {
  var label = 0;
  if (p.flags & SEGMENTS) != 0u { label = load_key_segment(b * p.segment_batch + key); }
  return label;
}
fn key_hidden(b: u32, key: u32) -> bool {
  var hidden = false;
  if (p.flags & MASK) != 0u { hidden = load_mask(b * p.mask_batch + key) == 0; }
  return hidden;
}
