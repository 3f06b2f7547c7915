// One invocation sums a column over a chunk of rows: d x̂ if `weighted`, else d.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  let chunk = id / p.n;
  let column = id % p.n;
  let first = chunk * p.chunk;
  if first >= p.rows { return; }
  var sum = 0.0;
  for (var row = first; row < min(first + p.chunk, p.rows); row += 1u) {
    let d = load_d(row * p.n + column);
    if p.weighted == 1u {
      var v = load_x(row * p.n + column);
      if p.centred == 1u { v = v - load_mean(row); }
      sum = fma(d, v * load_scale(row), sum);
    } else {
      sum += d;
    }
  }
  store_y(id, sum);
}
