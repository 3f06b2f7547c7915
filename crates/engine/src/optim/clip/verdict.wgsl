// The factor of clipping, and whether the rules run; see `Verdict`. One invocation in total.
fn kernel(group: u32, lane: u32) {
  if lane > 0u { return; }
  let norm = load_norm(0u);
  let latch = load_verdict(3u);
  let finite = is_finite(norm);
  if latch > 0.0 || (!finite && p.latches == 1u) {
    store_verdict(3u, latch + 1.0);
    store_verdict(1u, 1.0);
    return;
  }
  if !finite {
    store_verdict(2u, load_verdict(2u) + 1.0);
    store_verdict(1u, 1.0);
    return;
  }
  store_verdict(1u, 0.0);
  store_verdict(0u, select(1.0, min(1.0, p.max / (norm + 1e-6)), p.clips == 1u));
}
