// y = combine of a row's elements. One workgroup per row: strided lanes, then all lanes together; one read.
fn kernel(group: u32, lane: u32) {
  let base = ((group / p.chunks) * p.x_outer + (group % p.chunks) * p.x_chunk) / CELL;
  var own = Cell(start());
  for (var k = lane; k < p.n / CELL; k += THREADS) { own = further(own, get_x(base + k)); }
  let all = joint(lane, own);
  if lane == 0u { settle((group / p.chunks) * p.y_outer + (group % p.chunks) * p.y_chunk, all); }
}
