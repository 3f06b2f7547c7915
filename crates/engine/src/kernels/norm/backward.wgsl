// d_x = ρ (g − mean g − x̂ mean(g x̂)), g = w d, or d_x += that. One workgroup per row; two reads of x and d.
fn kernel(group: u32, lane: u32) {
  let cells = p.n / CELL;
  let base = group * cells;
  let scale = load_scale(group);
  var mean = 0.0;
  if p.centred == 1u { mean = load_mean(group); }
  var plain = Cell(0.0);
  var slope = Cell(0.0);
  var mark = 0u;
  for (var k = lane; k < cells; k += THREADS) {
    var g = get_d(base + k);
    mark |= u32(some(nans(g)));
    if p.weighted == 1u { g = g * get_weight(k); }
    plain += g;
    slope = fma(g, (get_x(base + k) - Cell(mean)) * scale, slope);
  }
  var taken = 0.0;
  if p.centred == 1u { taken = total(lane, across(plain)) / f32(p.n); }
  let along = total(lane, across(slope)) / f32(p.n);
  let bad = marked(lane, mark) != 0u || is_nan(scale);
  for (var k = lane; k < cells; k += THREADS) {
    var g = get_d(base + k);
    if p.weighted == 1u { g = g * get_weight(k); }
    var d_x = scale * (g - Cell(taken) - (get_x(base + k) - Cell(mean)) * scale * along);
    if p.adds == 1u { d_x = get_d_x(base + k) + d_x; }
    if bad { d_x = Cell(nan()); }
    put_d_x(base + k, d_x);
  }
}
