// value ← grad, unless the verdict stops the step. One read and one write.
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.size || load_verdict(1u) > 0.0 { return; }
  store_value(i, load_grad(i));
}
