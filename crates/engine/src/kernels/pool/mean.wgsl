// y = the mean of a window. One invocation per element of y; it reads its window.
fn kernel(group: u32, lane: u32) {
  let e = group * THREADS + lane;
  if e >= p.count { return; }
  let n = u32(volume(outs()));
  let plane = e / n * u32(volume(sizes()));
  let w = window(coordinates(i32(e % n), outs()));
  var sum = 0.0;
  for (var d = w.low.x; d < w.high.x; d++) {
    for (var h = w.low.y; h < w.high.y; h++) {
      for (var k = w.low.z; k < w.high.z; k++) {
        sum += load_x(plane + place(vec3<i32>(d, h, k), sizes()));
      }
    }
  }
  store_y(e, sum / w.divisor);
}
