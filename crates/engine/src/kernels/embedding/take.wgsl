// y[n, c] = T[id[n], c]. One invocation per element of y; one read, one write.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.rows * p.columns { return; }
  let n = i / p.columns;
  let c = i % p.columns;
  let id = load_ids(n);
  let y = n * p.y_step + c;
  // A negative index becomes a large one.
  let v = bitcast<u32>(id);
  if v >= p.vocabulary {
    if p.first == 1u { store_y(y, nan()); }
  } else if v >= p.start && v - p.start < p.count {
    store_y(y, load_table((v - p.start) * p.row_step + c * p.column_step));
  }
}
