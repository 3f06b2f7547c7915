// The loss of a row, and its gradient over the logits. One workgroup per row; two reads and one write.
fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  let cells = p.n / CELL;
  let base = group * (p.stride / CELL);
  if t == p.ignore {
    for (var k = lane; k < cells; k += THREADS) { put_x(base + k, Cell(0.0)); }
    if lane == 0u { store_loss(group, 0.0); }
    return;
  }
  let inside = t >= 0 && t < i32(p.n);
  // Read before any lane overwrites it.
  let x = one_x(group * p.stride + select(0u, u32(t), inside));
  let row = row_of(base, lane);
  storageBarrier();
  let bad = !inside || !is_sound(row.terms);
  let even = p.smoothing / f32(p.n);
  for (var k = lane; k < cells; k += THREADS) {
    let own = select(Cell(0.0), Cell(1.0 - p.smoothing), places(k) == Places(t));
    var v = exp(max(get_x(base + k) - Cell(row.terms.m), Cell(-104.0))) / row.terms.s - Cell(even) - own;
    if bad { v = Cell(nan()); }
    put_x(base + k, v);
  }
  if lane != 0u { return; }
  if bad { store_loss(group, nan()); } else { store_loss(group, loss_of(row, x)); }
}
