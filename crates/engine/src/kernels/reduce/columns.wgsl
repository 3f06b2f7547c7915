// y = combine of a column's elements, ascending. One invocation per column; one read.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let row = id / p.inner;
  let column = id % p.inner;
  let base = (row / p.chunks) * p.x_outer + (row % p.chunks) * p.x_chunk + column;
  var own = start();
  for (var k = 0u; k < p.n; k += 1u) { own = further(own, load_x(base + k * p.x_step)); }
  settle((row / p.chunks) * p.y_outer + (row % p.chunks) * p.y_chunk + column, own);
}
