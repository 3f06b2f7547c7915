// y = the maximum of a window, and its position. One invocation per element of y; it reads its window.
fn kernel(group: u32, lane: u32) {
  let e = group * THREADS + lane;
  if e >= p.count { return; }
  let n = u32(volume(outs()));
  let plane = e / n * u32(volume(sizes()));
  let w = window(coordinates(i32(e % n), outs()));
  var best = load_x(plane + place(w.low, sizes()));
  var chosen = place(w.low, sizes());
  for (var d = w.low.x; d < w.high.x; d++) {
    for (var h = w.low.y; h < w.high.y; h++) {
      for (var k = w.low.z; k < w.high.z; k++) {
        let at = place(vec3<i32>(d, h, k), sizes());
        let v = load_x(plane + at);
        if is_nan(v) || (!is_nan(best) && v > best) {
          best = v;
          chosen = at;
        }
      }
    }
  }
  store_y(e, best);
  store_index(e, i32(chosen));
}
