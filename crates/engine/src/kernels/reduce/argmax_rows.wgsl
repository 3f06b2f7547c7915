var<workgroup> value: array<f32, THREADS>;
var<workgroup> place: array<u32, THREADS>;
fn kernel(group: u32, lane: u32) {
  let base = group * p.row_stride;
  // Lanes take contiguous spans, so that the first of equal maxima wins.
  let span = (p.n + THREADS - 1u) / THREADS;
  let from = min(lane * span, p.n);
  let to = min(from + span, p.n);
  var best = bitcast<f32>(0xff800000u + p.groups - p.groups);
  var index = p.n;
  for (var k = from; k < to; k += 1u) {
    let v = load_x(base + k * p.inner_stride);
    if index == p.n || beats(v, best) { best = v; index = k; }
  }
  value[lane] = best;
  place[lane] = index;
  workgroupBarrier();
  if lane == 0u {
    for (var k = 1u; k < THREADS; k += 1u) {
      if place[k] < p.n && beats(value[k], best) { best = value[k]; index = place[k]; }
    }
    store_y(group * p.y_stride, i32(p.begin + index));
  }
}
