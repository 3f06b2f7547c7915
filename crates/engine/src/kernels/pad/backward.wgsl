// d_x = the sum of d over all copies of an element. One invocation per element.
fn kernel(group: u32, lane: u32) {
  let e = group * THREADS + lane;
  if e >= p.count { return; }
  let total = p.before + p.n + p.after;
  let k = e / p.inner % p.n;
  let at = e / p.inner / p.n * total * p.inner + e % p.inner;
  var sum = load_d(at + (p.before + k) * p.inner);
  if MODE == 1u {
    if k == 0u {
      for (var j = 0u; j < p.before; j++) { sum += load_d(at + j * p.inner); }
    }
    if k == p.n - 1u {
      for (var j = p.before + p.n; j < total; j++) { sum += load_d(at + j * p.inner); }
    }
  } else {
    // The positions of the copies before and after the middle; a negative one wraps past the end.
    var low = p.before - k;
    var high = p.before + 2u * (p.n - 1u) - k;
    if MODE == 2u {
      low = p.before + k - p.n;
      high = p.before + k + p.n;
    }
    if low < p.before { sum += load_d(at + low * p.inner); }
    if high >= p.before + p.n && high < total { sum += load_d(at + high * p.inner); }
  }
  store_d_x(e, sum);
}
