// As backward.wgsl, four elements at a time: rows are whole vectors.
fn nans4(v: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u); }
fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

fn kernel(group: u32, lane: u32) {
  let count = p.n / 4u;
  let base = group * count;
  let scale = load_scale(group);
  var mean = 0.0;
  if MEAN { mean = load_mean(group); }
  var plain = vec4<f32>();
  var along4 = vec4<f32>();
  var mark = 0u;
  for (var k = lane; k < count; k += THREADS) {
    var g = load4_d(base + k);
    mark |= u32(any(nans4(g)));
    if WEIGHT { g = g * load4_weight(k); }
    plain += g;
    along4 = fma(g, (load4_x(base + k) - mean) * scale, along4);
  }
  var taken = 0.0;
  if MEAN { taken = total(lane, across(plain)) / f32(p.n); }
  let along = total(lane, across(along4)) / f32(p.n);
  let bad = marked(lane, mark) != 0u || is_nan(scale);
  for (var k = lane; k < count; k += THREADS) {
    var g = load4_d(base + k);
    if WEIGHT { g = g * load4_weight(k); }
    var d_x = scale * (g - taken - (load4_x(base + k) - mean) * scale * along);
    if ADDS { d_x = load4_d_x(base + k) + d_x; }
    if bad { d_x = vec4<f32>(nan()); }
    store4_d_x(base + k, d_x);
  }
}
