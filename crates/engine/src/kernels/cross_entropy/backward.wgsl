// d_x = (e^(x − s) − (1 − e) [j = t] − e/V) · scale. One workgroup a row; one read and one write.
fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  let base = group * p.n;
  if t == bitcast<i32>(p.ignore) {
    for (var k = lane; k < p.n; k += THREADS) { store_d_x(base + k, 0.0); }
    return;
  }
  var scale = load_d(select(0u, group, SCALE == 0u));
  if SCALE == 2u { scale = scale / load_count(0u); }
  let s = load_log_sum(group);
  let bad = is_nan(scale) || is_nan(s) || t < 0 || t >= i32(p.n);
  let even = p.smoothing / f32(p.n);
  for (var k = lane; k < p.n; k += THREADS) {
    let v = shifted(load_x(base + k), s) - even - select(0.0, 1.0 - p.smoothing, i32(k) == t);
    if bad { store_d_x(base + k, nan()); } else { store_d_x(base + k, v * scale); }
  }
}
