// y = the running sum along a row. One workgroup per row, in blocks of THREADS; one read, one write.
var<workgroup> part: array<f32, THREADS>;
fn kernel(group: u32, lane: u32) {
  let base = group * p.outer_step;
  var before = 0.0;
  if p.first == 0u { before = load_carry(group * p.step); }
  for (var block = 0u; block < p.n; block += THREADS) {
    let k = block + lane;
    var v = 0.0;
    if k < p.n { v = load_x(base + k * p.step); }
    part[lane] = v;
    workgroupBarrier();
    for (var reach = 1u; reach < THREADS; reach *= 2u) {
      var left = 0.0;
      if lane >= reach { left = part[lane - reach]; }
      workgroupBarrier();
      part[lane] += left;
      workgroupBarrier();
    }
    if k < p.n { store_y(base + k * p.step, before + part[lane]); }
    before += part[THREADS - 1u];
    workgroupBarrier();
  }
  if lane == 0u { store_carry(group * p.step, before); }
}
