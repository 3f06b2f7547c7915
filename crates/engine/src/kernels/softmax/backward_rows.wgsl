// One workgroup per row; two reads of y and d.
fn kernel(group: u32, lane: u32) {
  let cells = p.n / CELL;
  let base = group * cells;
  var own = Cell(0.0);
  var mark = 0u;
  for (var k = lane; k < cells; k += THREADS) {
    let y = get_y(base + k);
    let d = get_d(base + k);
    if p.logarithm == 1u { own += d; } else { own += d * y; }
    mark |= u32(some(nans(y) | nans(d)));
  }
  let sum = total(lane, across(own));
  let bad = marked(lane, mark) != 0u;
  for (var k = lane; k < cells; k += THREADS) {
    let y = get_y(base + k);
    let d = get_d(base + k);
    var d_x = y * (d - Cell(sum));
    if p.logarithm == 1u { d_x = d - exp(y) * sum; }
    if bad { d_x = Cell(nan()); }
    put_d_x(base + k, d_x);
  }
}
