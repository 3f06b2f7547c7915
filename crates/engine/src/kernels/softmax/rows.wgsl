// One workgroup per row; two reads of x.
fn kernel(group: u32, lane: u32) {
  let cells = p.n / CELL;
  let base = group * cells;
  var own = no_terms();
  for (var k = lane; k < cells; k += THREADS) { own = terms(own, get_x(base + k)); }
  let sum = gathered(lane, own);
  let sound = is_sound(sum);
  let log_sum = log(sum.s);
  for (var k = lane; k < cells; k += THREADS) {
    let v = get_x(base + k);
    var y = exp(max(v - Cell(sum.m), Cell(-104.0))) / sum.s;
    if p.logarithm == 1u { y = v - Cell(sum.m) - Cell(log_sum); }
    // In a valid row only −∞ is not finite.
    y = select(y, select(Cell(0.0), v, p.logarithm == 1u), odd(v));
    if !sound { y = Cell(nan()); }
    put_y(base + k, y);
  }
}
