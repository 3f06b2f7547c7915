// y = combine of a row's integers. One workgroup per row: strided lanes, then halving; one read.
var<workgroup> part: array<i32, THREADS>;
fn kernel(group: u32, lane: u32) {
  let base = (group / p.chunks) * p.x_outer + (group % p.chunks) * p.x_chunk;
  var own = start();
  for (var k = lane; k < p.n; k += THREADS) { own = combine(own, load_x(base + k)); }
  part[lane] = own;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { part[lane] = combine(part[lane], part[lane + half]); }
    workgroupBarrier();
  }
  if lane == 0u { settle((group / p.chunks) * p.y_outer + (group % p.chunks) * p.y_chunk, part[0]); }
}
