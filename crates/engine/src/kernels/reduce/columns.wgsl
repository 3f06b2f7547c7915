fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let row = id / p.inner;
  let column = id % p.inner;
  let base = row * p.row_stride + column;
  var sum = start();
  for (var k = 0u; k < p.n; k += 1u) { sum = combine(sum, element(base + k * p.inner_stride)); }
  let at = row * p.y_stride + column;
  if p.first == 1u { store_y(at, sum); } else { store_y(at, combine(load_y(at), sum)); }
}
