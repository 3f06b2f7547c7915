// Σ losses and the number of trained rows, added to the results of earlier windows. One workgroup in total.
fn kernel(group: u32, lane: u32) {
  var sum = 0.0;
  var count = 0.0;
  var mark = 0u;
  for (var r = lane; r < p.rows; r += THREADS) {
    let v = load_losses(r);
    mark |= u32(is_nan(v));
    sum += v;
    count += f32(load_targets(r) != p.ignore);
  }
  sum = total(lane, sum);
  count = total(lane, count);
  mark = marked(lane, mark);
  if lane != 0u { return; }
  if p.first == 0u {
    mark |= u32(is_nan(load_y(0u)));
    sum += load_y(0u);
    count += load_count(0u);
  }
  // The mean over no rows is NaN.
  if p.mean == 1u && p.last == 1u {
    mark |= u32(count == 0.0);
    sum = sum / max(count, 1.0);
  }
  if mark != 0u { store_y(0u, nan()); } else { store_y(0u, sum); }
  store_count(0u, count);
}
