// d_x = ρ (g − mean g − x̂ mean(g x̂)), g = w d; d_x += that where it ADDS. One workgroup a row; two reads of x and d.
fn kernel(group: u32, lane: u32) {
  let base = group * p.n;
  let scale = load_scale(group);
  var mean = 0.0;
  if MEAN { mean = load_mean(group); }
  var plain = 0.0;
  var along = 0.0;
  var mark = 0u;
  for (var k = lane; k < p.n; k += THREADS) {
    var g = load_d(base + k);
    mark |= u32(is_nan(g));
    if WEIGHT { g = g * load_weight(k); }
    plain += g;
    along = fma(g, (load_x(base + k) - mean) * scale, along);
  }
  var taken = 0.0;
  if MEAN { taken = total(lane, plain) / f32(p.n); }
  along = total(lane, along) / f32(p.n);
  let bad = marked(lane, mark) != 0u || is_nan(scale);
  for (var k = lane; k < p.n; k += THREADS) {
    var g = load_d(base + k);
    if WEIGHT { g = g * load_weight(k); }
    var d_x = scale * (g - taken - (load_x(base + k) - mean) * scale * along);
    if ADDS { d_x = load_d_x(base + k) + d_x; }
    if bad { store_d_x(base + k, nan()); } else { store_d_x(base + k, d_x); }
  }
}
