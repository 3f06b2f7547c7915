// One line of the recurrence. One invocation per line; one or two reads and one write per element.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  if id >= p.rows * p.inner { return; }
  let row = id / p.inner;
  let column = id % p.inner;
  var c = START;
  if p.first == 0u { c = load_carry(row * p.step + column); }
  for (var k = 0u; k < p.n; k += 1u) {
    let at = row * p.outer_step + k * p.step + column;
    BODY
  }
  store_carry(row * p.step + column, c);
}
