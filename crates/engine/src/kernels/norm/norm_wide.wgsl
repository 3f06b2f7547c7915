// As norm.wgsl, four elements at a time: rows are whole vectors.
fn finite4(v: vec4<f32>) -> bool { return all((bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u)); }
fn nans4(v: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u); }
fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

fn kernel(group: u32, lane: u32) {
  let count = p.n / 4u;
  let base = group * count;
  var sums = vec4<f32>();
  var mark = 0u;
  for (var k = lane; k < count; k += THREADS) {
    let v = first_x4(base + k);
    sums += v;
    let finite = finite4(v);
    if any(nans4(v)) || (MEAN && !finite) { mark |= 1u; }
    if !finite { mark |= 2u; }
  }
  let marks = marked(lane, mark);
  var mean = 0.0;
  if MEAN { mean = total(lane, across(sums)) / f32(p.n); }
  var squares = vec4<f32>();
  var left = vec4<f32>();
  for (var k = lane; k < count; k += THREADS) {
    let v = x4_again(base + k) - mean;
    squares = fma(v, v, squares);
    left += v;
  }
  var spread = total(lane, across(squares)) / f32(p.n);
  if MEAN {
    let rest = total(lane, across(left)) / f32(p.n);
    mean += rest;
    spread -= rest * rest;
  }
  var scale = 1.0 / sqrt(spread + p.eps);
  if (marks & 2u) != 0u { scale = 0.0; }
  for (var k = lane; k < count; k += THREADS) {
    let v = x4_again(base + k);
    var y = (v - mean) * scale;
    if WEIGHT { y = y * load4_weight(k); }
    if BIAS { y = y + load4_bias(k); }
    let infinite = (bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
    if (marks & 1u) != 0u { y = vec4<f32>(nan()); }
    store4_y(base + k, select(y, vec4<f32>(nan()), infinite));
  }
  if lane == 0u {
    if (marks & 1u) != 0u { store_scale(group, nan()); } else { store_scale(group, scale); }
    keep_mean(group, mean);
  }
}
