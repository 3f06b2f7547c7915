// The terms of a row's loss: Σ eˣ, and the sum of the finite x.
struct Row { terms: LogSum, plain: f32 }
fn row_of(base: u32, lane: u32) -> Row {
  var own = no_terms();
  var sum = Cell(0.0);
  for (var k = lane; k < p.n / CELL; k += THREADS) {
    let v = get_x(base + k);
    own = terms(own, v);
    sum += select(v, Cell(0.0), odd(v));
  }
  let all = gathered(lane, own);
  return Row(all, total(lane, across(sum)));
}
// The loss of a valid row with target logit x. A logit of −∞ adds nothing to Σ eˣ, but makes the loss infinite.
fn loss_of(row: Row, x: f32) -> f32 {
  if !is_finite(x) || (p.smoothing > 0.0 && (row.terms.mark & 4u) != 0u) { return infinity(); }
  return (log_sum_of(row) - x) + p.smoothing * (x - row.plain / f32(p.n));
}
fn log_sum_of(row: Row) -> f32 { return row.terms.m + log(row.terms.s); }
