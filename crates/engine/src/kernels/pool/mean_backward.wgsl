// d_x = the sum of d / divisor over the windows that contain an element. One invocation per element of x.
fn kernel(group: u32, lane: u32) {
  let e = group * THREADS + lane;
  if e >= p.count { return; }
  let n = u32(volume(sizes()));
  let plane = e / n * u32(volume(outs()));
  let w = holders(coordinates(i32(e % n), sizes()));
  var sum = 0.0;
  for (var d = w.low.x; d < w.high.x; d++) {
    for (var h = w.low.y; h < w.high.y; h++) {
      for (var k = w.low.z; k < w.high.z; k++) {
        let o = vec3<i32>(d, h, k);
        sum += load_d(plane + place(o, outs())) / window(o).divisor;
      }
    }
  }
  store_d_x(e, sum);
}
