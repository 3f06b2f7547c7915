// Sums and marks over a workgroup: log₂ THREADS barriers each.
var<workgroup> part: array<f32, THREADS>;
var<workgroup> marks: array<u32, THREADS>;
// Σ v over the lanes, by halving.
fn total(lane: u32, v: f32) -> f32 {
  part[lane] = v;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { part[lane] = part[lane] + part[lane + half]; }
    workgroupBarrier();
  }
  let sum = part[0];
  workgroupBarrier();
  return sum;
}
// The union of all lanes' marks.
fn marked(lane: u32, mark: u32) -> u32 {
  marks[lane] = mark;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { marks[lane] = marks[lane] | marks[lane + half]; }
    workgroupBarrier();
  }
  let all = marks[0];
  workgroupBarrier();
  return all;
}
