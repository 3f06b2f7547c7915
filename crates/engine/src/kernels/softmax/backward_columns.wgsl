// One invocation per column; two reads of y and d.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let base = id / p.inner * p.n * p.inner + id % p.inner;
  var sum = 0.0;
  var bad = false;
  for (var k = 0u; k < p.n; k += 1u) {
    let y = load_y(base + k * p.inner);
    let d = load_d(base + k * p.inner);
    if p.logarithm == 1u { sum += d; } else { sum += d * y; }
    bad = bad || is_nan(y) || is_nan(d);
  }
  for (var k = 0u; k < p.n; k += 1u) {
    let y = load_y(base + k * p.inner);
    let d = load_d(base + k * p.inner);
    var d_x = y * (d - sum);
    if p.logarithm == 1u { d_x = d - exp(y) * sum; }
    if bad { d_x = nan(); }
    store_d_x(base + k * p.inner, d_x);
  }
}
