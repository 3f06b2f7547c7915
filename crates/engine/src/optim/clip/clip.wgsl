// g ← g · min(1, max / (norm + 1e-6)), one invocation per element: one read, one write.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size { return; }
  let norm = load_norm(0u);
  let g = load_grad(i);
  if is_finite(norm) {
    store_grad(i, g * min(1.0, p.max / (norm + 1e-6)));
  } else if is_nan(norm) || !is_finite(g) {
    store_grad(i, nan());
  } else {
    store_grad(i, g * 0.0);
  }
}
