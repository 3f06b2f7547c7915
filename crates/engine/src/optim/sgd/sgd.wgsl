// p ← p − lr (g + λp), one invocation per element: two reads, one write.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size || load_verdict(1u) > 0.0 { return; }
  let value = load_value(i);
  let d = fma(p.decay, value, load_grad(i) * load_verdict(0u));
  store_value(i, fma(-p.lr, d, value));
}
