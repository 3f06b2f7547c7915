fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let base = (id / p.inner) * p.row_stride + id % p.inner;
  var best = load_x(base);
  var index = 0u;
  for (var k = 1u; k < p.n; k += 1u) {
    let v = load_x(base + k * p.inner_stride);
    if beats(v, best) { best = v; index = k; }
  }
  store_y((id / p.inner) * p.y_stride + id % p.inner, i32(p.begin + index));
}
