// y[o, k, i] = x[o, index[o, k, i], i]. One invocation per element of y; one read, one write.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.outer * p.picks * p.inner { return; }
  let pick = pick_of(id);
  let at = pick.o * p.outer_step + pick.k * p.pick_step + pick.i;
  // A negative index becomes a large one.
  let j = bitcast<u32>(load_index(at));
  if j >= p.size {
    if p.first == 1u { store_y(at, missing()); }
  } else if j >= p.start && j - p.start < p.count {
    store_y(at, load_x(pick.o * p.x_outer_step + (j - p.start) * p.x_step + pick.i));
  }
}
