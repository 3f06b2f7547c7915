// d_T[v, c] += Σ d_y[n, c] along the chain of v. One invocation per element of d_y, but only heads of chains do work;
// one read of d_y.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.rows * p.columns { return; }
  let n = i / p.columns;
  let id = load_head(n);
  if id < 0 { return; }
  let v = bitcast<u32>(id) - p.start;
  if v >= p.count { return; }
  let c = i % p.columns;
  let at = v * p.row_step + c * p.column_step;
  var sum = load_d_table(at);
  for (var k = i32(n); k >= 0; k = load_next(u32(k))) { sum += load_d_y(u32(k) * p.d_step + c); }
  store_d_table(at, sum);
}
