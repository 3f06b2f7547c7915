// y[o, index[o, k, i], i] = x[o, k, i], with distinct indices in each line. One invocation per pick.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.outer * p.picks * p.inner { return; }
  let pick = pick_of(id);
  let at = pick.o * p.outer_step + pick.k * p.pick_step + pick.i;
  let j = bitcast<u32>(load_index(at));
  if j < p.size && j >= p.start && j - p.start < p.count {
    store_y(pick.o * p.x_outer_step + (j - p.start) * p.x_step + pick.i, load_x(at));
  }
}
