// The factor of clipping and the latch, as `Verdict` says. One invocation in all.
fn kernel(group: u32, lane: u32) {
  if lane > 0u { return; }
  let norm = load_norm(0u);
  let undone = load_verdict(1u);
  if undone > 0.0 || !is_finite(norm) {
    store_verdict(1u, undone + 1.0);
    return;
  }
  store_verdict(0u, select(1.0, min(1.0, p.max / (norm + 1e-6)), p.clips == 1u));
}
