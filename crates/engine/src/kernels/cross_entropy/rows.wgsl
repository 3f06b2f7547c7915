// The loss and the log-sum-exp of a row. One workgroup per row; one read of the logits.
fn kernel(group: u32, lane: u32) {
  let t = load_targets(group);
  if t == p.ignore {
    if lane == 0u { store_loss(group, 0.0); store_log_sum(group, 0.0); }
    return;
  }
  let row = row_of(group * (p.n / CELL), lane);
  if lane != 0u { return; }
  if t < 0 || t >= i32(p.n) || !is_sound(row.terms) {
    store_loss(group, nan());
    store_log_sum(group, nan());
    return;
  }
  store_log_sum(group, log_sum_of(row));
  store_loss(group, loss_of(row, one_x(group * p.n + u32(t))));
}
