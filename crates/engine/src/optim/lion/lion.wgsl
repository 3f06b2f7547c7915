// m and p of one element each: three reads, two writes.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size || load_verdict(1u) > 0.0 { return; }
  let g = load_grad(i) * load_verdict(0u);
  let m = load_first(i);
  store_value(i, fma(-p.lr, sign(fma(p.beta1, m, p.rate1 * g)), p.keep * load_value(i)));
  store_first(i, fma(p.beta2, m, p.rate2 * g));
}
