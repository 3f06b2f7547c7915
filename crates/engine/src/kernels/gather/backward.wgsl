// d_x[o, j, i] += Σ d_y[o, k, i] over the k with index j. One invocation per pick; the first of equal indices sums all
// of them, ascending; at worst k² reads per line.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.outer * p.picks * p.inner { return; }
  let pick = pick_of(id);
  let line = pick.o * p.outer_step + pick.i;
  let index = load_index(line + pick.k * p.pick_step);
  let j = bitcast<u32>(index) - p.start;
  if bitcast<u32>(index) >= p.size || j >= p.count { return; }
  for (var before = 0u; before < pick.k; before += 1u) {
    if load_index(line + before * p.pick_step) == index { return; }
  }
  let at = pick.o * p.x_outer_step + j * p.x_step + pick.i;
  var sum = load_d_x(at);
  for (var then = pick.k; then < p.picks; then += 1u) {
    if load_index(line + then * p.pick_step) == index { sum += load_d_y(line + then * p.pick_step); }
  }
  store_d_x(at, sum);
}
