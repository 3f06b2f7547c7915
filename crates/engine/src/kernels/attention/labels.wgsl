// Labels of forward: a binding for each.
fn query_label(b: u32, t: u32) -> i32 {
  if (p.flags & SEGMENTS) == 0u { return 0; }
  return load_query_segment(b * p.segment_batch + t);
}
fn key_label(b: u32, key: u32) -> i32 {
  if (p.flags & SEGMENTS) == 0u { return 0; }
  return load_key_segment(b * p.segment_batch + key);
}
fn key_hidden(b: u32, key: u32) -> bool {
  if (p.flags & MASK) == 0u { return false; }
  return load_mask(b * p.mask_batch + key) == 0;
}
