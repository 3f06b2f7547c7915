// m, v and p of one element each: four reads, three writes.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size || load_verdict(1u) > 0.0 { return; }
  let g = load_grad(i) * load_verdict(0u);
  let m = fma(p.rate1, g - load_first(i), load_first(i));
  let v = fma(p.rate2 * g, g, p.beta2 * load_second(i));
  store_first(i, m);
  store_second(i, v);
  store_value(i, fma(-p.step, m / (sqrt(v) / p.root + p.eps), p.keep * load_value(i)));
}
