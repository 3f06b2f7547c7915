// y = combine of element(x) along a row. One workgroup a row: strided lanes, then halves; one read.
var<workgroup> part: array<Element, THREADS>;
fn kernel(group: u32, lane: u32) {
  let base = (group / p.chunks) * p.x_outer + (group % p.chunks) * p.x_chunk;
  var sum = start();
  for (var k = lane; k < p.n; k += THREADS) { sum = combine(sum, element(base + k * p.x_step)); }
  part[lane] = sum;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { part[lane] = combine(part[lane], part[lane + half]); }
    workgroupBarrier();
  }
  if lane == 0u { settle((group / p.chunks) * p.y_outer + (group % p.chunks) * p.y_chunk, part[0]); }
}
