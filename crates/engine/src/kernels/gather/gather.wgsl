fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.outer * p.picks * p.inner { return; }
  let i = id % p.inner;
  let rest = id / p.inner;
  let o = rest / p.picks;
  let at = o * p.outer_step + (rest % p.picks) * p.pick_step + i;
  // A negative index is a large one.
  let j = bitcast<u32>(load_index(at));
  if j >= p.size {
    if p.first == 1u { store_y(at, nan()); }
  } else if j >= p.start && j - p.start < p.count {
    store_y(at, load_x(o * p.x_outer_step + (j - p.start) * p.x_step + i));
  }
}
