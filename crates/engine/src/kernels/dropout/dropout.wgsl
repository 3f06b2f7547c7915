// x · mask / (1 − p). An invocation processes four elements, the words of one counter: one read, one write.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  let i = id * 4u;
  if i >= p.size { return; }
  let random = philox(vec4(p.block + id, 0u, p.offset0, p.offset1), vec2(p.seed0, p.seed1));
  for (var w = 0u; w < 4u && i + w < p.size; w += 1u) {
    let x = load_x(i + w);
    var v = 0.0;
    if random[w] >= p.threshold {
      v = x * p.scale;
    } else if !is_finite(x) {
      v = nan();
    }
    STORE
  }
}
