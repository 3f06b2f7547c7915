// m, v and p of one element each: four reads, three writes.

// 1 - exp(x) for x <= 0.
fn gap(x: f32) -> f32 {
  if x < -0.5 { return 1.0 - exp(x); }
  let tail = 1.0 + x / 6.0 * (1.0 + x / 7.0 * (1.0 + x / 8.0 * (1.0 + x / 9.0)));
  return -x * (1.0 + x / 2.0 * (1.0 + x / 3.0 * (1.0 + x / 4.0 * (1.0 + x / 5.0 * tail))));
}

fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size || load_verdict(1u) > 0.0 { return; }
  var root = p.root;
  var step = p.step;
  let late = load_verdict(2u);
  if late > 0.0 {
    let t = max(p.count - late, 1.0);
    root = sqrt(gap(t * p.log2));
    step = p.lr / gap(t * p.log1);
  }
  let g = GRADIENT;
  let m = fma(p.rate1, g - load_first(i), load_first(i));
  let v = fma(p.rate2 * g, g, p.beta2 * load_second(i));
  store_first(i, m);
  store_second(i, v);
  store_value(i, fma(-step, m / (sqrt(v) / root + p.eps), p.keep * load_value(i)));
}
