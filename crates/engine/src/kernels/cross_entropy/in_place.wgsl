fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  let base = group * p.n;
  if t == bitcast<i32>(p.ignore) {
    for (var k = lane; k < p.n; k += THREADS) { store_x(base + k, 0.0); }
    if lane == 0u { store_loss(group, 0.0); }
    return;
  }
  let inside = t >= 0 && t < i32(p.n);
  // Before any lane writes over it.
  let x = load_x(base + select(0u, u32(t), inside));
  var own = no_terms();
  var sum = 0.0;
  for (var k = lane; k < p.n; k += THREADS) {
    let v = load_x(base + k);
    own = with_term(own, v);
    if is_finite(v) { sum += v; }
  }
  let all = gathered(lane, own);
  let plain = total(lane, sum);
  storageBarrier();
  let bad = !inside || !is_sound(all);
  let even = p.smoothing / f32(p.n);
  for (var k = lane; k < p.n; k += THREADS) {
    let v = shifted(load_x(base + k), all.m) / all.s - even - select(0.0, 1.0 - p.smoothing, i32(k) == t);
    if bad { store_x(base + k, nan()); } else { store_x(base + k, v); }
  }
  if lane != 0u { return; }
  if bad {
    store_loss(group, nan());
  } else if !is_finite(x) || (p.smoothing > 0.0 && (all.mark & 4u) != 0u) {
    store_loss(group, infinity());
  } else {
    store_loss(group, (all.m + log(all.s) - x) + p.smoothing * (x - plain / f32(p.n)));
  }
}
