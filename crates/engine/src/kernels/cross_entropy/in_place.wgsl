// The loss of a row, and its gradient over the logits. One workgroup a row; two reads and one write.
fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  let base = group * p.stride;
  if t == bitcast<i32>(p.ignore) {
    for (var k = lane; k < p.n; k += THREADS) { store_x(base + k, 0.0); }
    if lane == 0u { store_loss(group, 0.0); }
    return;
  }
  let inside = t >= 0 && t < i32(p.n);
  // Before any lane writes over it.
  let x = load_x(base + select(0u, u32(t), inside));
  let row = row_of(base, lane);
  storageBarrier();
  let bad = !inside || !is_sound(row.terms);
  let even = p.smoothing / f32(p.n);
  for (var k = lane; k < p.n; k += THREADS) {
    let v = shifted(load_x(base + k), row.terms.m) / row.terms.s - even - select(0.0, 1.0 - p.smoothing, i32(k) == t);
    if bad { store_x(base + k, nan()); } else { store_x(base + k, v); }
  }
  if lane != 0u { return; }
  if bad { store_loss(group, nan()); } else { store_loss(group, loss_of(row, x)); }
}
