// b and p of one element each: three reads, two writes.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size || load_verdict(1u) > 0.0 { return; }
  let value = load_value(i);
  let d = fma(p.decay, value, load_grad(i) * load_verdict(0u));
  let late = load_verdict(2u);
  let rate = select(p.rate, 1.0, late > 0.0 && p.count - late <= 1.0);
  let buffer = fma(p.momentum, load_buffer(i), rate * d);
  store_buffer(i, buffer);
  store_value(i, fma(-p.lr, select(buffer, fma(p.momentum, buffer, d), p.nesterov == 1u), value));
}
