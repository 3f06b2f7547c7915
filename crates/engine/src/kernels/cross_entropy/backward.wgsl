// d_x = (e^(x − s) − (1 − e) [j = t] − e/V) · scale. One workgroup per row; one read and one write.
fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  let cells = p.n / CELL;
  let base = group * cells;
  if t == p.ignore {
    for (var k = lane; k < cells; k += THREADS) { put_d_x(base + k, Cell(0.0)); }
    return;
  }
  var scale = load_d(select(0u, group, p.scaling == 0u));
  if p.scaling == 2u { scale = scale / load_count(0u); }
  let s = load_log_sum(group);
  let bad = is_nan(scale) || is_nan(s) || t < 0 || t >= i32(p.n);
  let even = p.smoothing / f32(p.n);
  for (var k = lane; k < cells; k += THREADS) {
    let own = select(Cell(0.0), Cell(1.0 - p.smoothing), places(k) == Places(t));
    var v = (exp(max(get_x(base + k) - Cell(s), Cell(-104.0))) - Cell(even) - own) * scale;
    if bad { v = Cell(nan()); }
    put_d_x(base + k, v);
  }
}
