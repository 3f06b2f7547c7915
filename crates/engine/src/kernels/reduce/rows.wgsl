var<workgroup> part: array<f32, THREADS>;
fn kernel(group: u32, lane: u32) {
  let base = group * p.row_stride;
  var sum = start();
  for (var k = lane; k < p.n; k += THREADS) { sum = combine(sum, element(base + k * p.inner_stride)); }
  part[lane] = sum;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { part[lane] = combine(part[lane], part[lane + half]); }
    workgroupBarrier();
  }
  if lane == 0u {
    let at = group * p.y_stride;
    if p.first == 1u { store_y(at, part[0]); } else { store_y(at, combine(load_y(at), part[0])); }
  }
}
