// y = w x̂ + b, ρ, and μ through keep_mean. One workgroup per row; two reads of x, three with a mean.
fn kernel(group: u32, lane: u32) {
  let cells = p.n / CELL;
  let base = group * cells;
  var sums = Cell(0.0);
  var mark = 0u;
  for (var k = lane; k < cells; k += THREADS) {
    let v = first_x(base + k);
    sums += v;
    // A NaN anywhere, or an infinity if a mean is subtracted, makes the whole row NaN.
    let infinite = some(odd(v));
    if some(nans(v)) || (MEAN && infinite) { mark |= 1u; }
    if infinite { mark |= 2u; }
  }
  let marks = marked(lane, mark);
  var mean = 0.0;
  if MEAN { mean = total(lane, across(sums)) / f32(p.n); }
  var squares = Cell(0.0);
  var left = Cell(0.0);
  for (var k = lane; k < cells; k += THREADS) {
    let v = x_again(base + k) - Cell(mean);
    squares = fma(v, v, squares);
    left += v;
  }
  var spread = total(lane, across(squares)) / f32(p.n);
  if MEAN {
    // Corrects mean and variance for the rounding error of the mean.
    let rest = total(lane, across(left)) / f32(p.n);
    mean += rest;
    spread -= rest * rest;
  }
  var scale = 1.0 / sqrt(spread + p.eps);
  if (marks & 2u) != 0u { scale = 0.0; }
  for (var k = lane; k < cells; k += THREADS) {
    let v = x_again(base + k);
    var y = (v - Cell(mean)) * scale;
    if p.weighted == 1u { y = y * get_weight(k); }
    if p.biased == 1u { y = y + get_bias(k); }
    if (marks & 1u) != 0u { y = Cell(nan()); }
    put_y(base + k, select(y, Cell(nan()), odd(v)));
  }
  if lane == 0u {
    if (marks & 1u) != 0u { store_scale(group, nan()); } else { store_scale(group, scale); }
    keep_mean(group, mean);
  }
}
