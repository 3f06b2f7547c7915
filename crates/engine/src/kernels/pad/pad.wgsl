// y = x with padding. One invocation per element; one read.
fn kernel(group: u32, lane: u32) {
  let e = group * THREADS + lane;
  if e >= p.count { return; }
  let total = p.before + p.n + p.after;
  let n = i32(p.n);
  var k = i32(e / p.inner % total) - i32(p.before);
  if MODE == 0u {
    k = select(k, -k, k < 0);
    k = select(k, 2 * (n - 1) - k, k >= n);
  } else if MODE == 1u {
    k = clamp(k, 0, n - 1);
  } else {
    k = select(select(k, k - n, k >= n), k + n, k < 0);
  }
  store_y(e, load_x((e / p.inner / total * p.n + u32(k)) * p.inner + e % p.inner));
}
