fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  if t == bitcast<i32>(p.ignore) {
    if lane == 0u { store_loss(group, 0.0); store_log_sum(group, 0.0); }
    return;
  }
  let base = group * p.n;
  var own = no_terms();
  var sum = 0.0;
  for (var k = lane; k < p.n; k += THREADS) {
    let v = load_x(base + k);
    own = with_term(own, v);
    if is_finite(v) { sum += v; }
  }
  let all = gathered(lane, own);
  let plain = total(lane, sum);
  if lane != 0u { return; }
  if t < 0 || t >= i32(p.n) || !is_sound(all) {
    store_loss(group, nan());
    store_log_sum(group, nan());
    return;
  }
  let s = all.m + log(all.s);
  let x = load_x(base + u32(t));
  store_log_sum(group, s);
  // A −∞ has no part in e^x, but all in the loss.
  if !is_finite(x) || (p.smoothing > 0.0 && (all.mark & 4u) != 0u) {
    store_loss(group, infinity());
  } else {
    store_loss(group, (s - x) + p.smoothing * (x - plain / f32(p.n)));
  }
}
