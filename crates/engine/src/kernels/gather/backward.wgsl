fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.outer * p.picks * p.inner { return; }
  let i = id % p.inner;
  let rest = id / p.inner;
  let o = rest / p.picks;
  let k = rest % p.picks;
  let line = o * p.outer_step + i;
  let index = load_index(line + k * p.pick_step);
  let j = bitcast<u32>(index) - p.start;
  if bitcast<u32>(index) >= p.size || j >= p.count { return; }
  for (var before = 0u; before < k; before += 1u) {
    if load_index(line + before * p.pick_step) == index { return; }
  }
  let at = o * p.x_outer_step + j * p.x_step + i;
  var sum = load_d_x(at);
  for (var then = k; then < p.picks; then += 1u) {
    if load_index(line + then * p.pick_step) == index { sum += load_d_y(line + then * p.pick_step); }
  }
  store_d_x(at, sum);
}
