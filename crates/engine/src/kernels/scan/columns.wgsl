// y = the running sum down a column. One invocation per column; one read, one write.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let row = id / p.inner;
  let column = id % p.inner;
  var sum = 0.0;
  if p.first == 0u { sum = load_carry(row * p.step + column); }
  for (var k = 0u; k < p.n; k += 1u) {
    let at = row * p.outer_step + k * p.step + column;
    sum += load_x(at);
    store_y(at, sum);
  }
  store_carry(row * p.step + column, sum);
}
