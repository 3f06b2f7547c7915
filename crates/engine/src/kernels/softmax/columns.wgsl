// One invocation per column; two reads of x.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let base = id / p.inner * p.n * p.inner + id % p.inner;
  var sum = no_terms();
  for (var k = 0u; k < p.n; k += 1u) { sum = with_term(sum, load_x(base + k * p.inner)); }
  let sound = is_sound(sum);
  let log_sum = log(sum.s);
  for (var k = 0u; k < p.n; k += 1u) {
    let v = load_x(base + k * p.inner);
    var y = 0.0;
    if is_finite(v) { y = shifted(v, sum.m) / sum.s; }
    if p.logarithm == 1u {
      y = v;
      if is_finite(v) { y = v - sum.m - log_sum; }
    }
    if !sound { y = nan(); }
    store_y(base + k * p.inner, y);
  }
}
