// y = w x̂ + b, ρ, and μ through keep_mean. One workgroup a row; two reads of x, three with a mean.
fn kernel(group: u32, lane: u32) {
  let base = group * p.n;
  var sum = 0.0;
  var mark = 0u;
  for (var k = lane; k < p.n; k += THREADS) {
    let v = first_x(base + k);
    sum += v;
    // NaN anywhere, or an infinity where a mean is taken off, is NaN everywhere.
    if is_nan(v) || (MEAN && !is_finite(v)) { mark |= 1u; }
    if !is_finite(v) { mark |= 2u; }
  }
  let marks = marked(lane, mark);
  var mean = 0.0;
  if MEAN { mean = total(lane, sum) / f32(p.n); }
  var squares = 0.0;
  var left = 0.0;
  for (var k = lane; k < p.n; k += THREADS) {
    let v = x_again(base + k) - mean;
    squares = fma(v, v, squares);
    left += v;
  }
  var spread = total(lane, squares) / f32(p.n);
  if MEAN {
    // What rounding left of the mean is taken off both.
    left = total(lane, left) / f32(p.n);
    mean += left;
    spread -= left * left;
  }
  var scale = 1.0 / sqrt(spread + p.eps);
  if (marks & 2u) != 0u { scale = 0.0; }
  for (var k = lane; k < p.n; k += THREADS) {
    let v = x_again(base + k);
    var y = (v - mean) * scale;
    if WEIGHT { y = y * load_weight(k); }
    if BIAS { y = y + load_bias(k); }
    if (marks & 1u) != 0u || !is_finite(v) { store_y(base + k, nan()); } else { store_y(base + k, y); }
  }
  if lane == 0u {
    if (marks & 1u) != 0u { store_scale(group, nan()); } else { store_scale(group, scale); }
    keep_mean(group, mean);
  }
}
