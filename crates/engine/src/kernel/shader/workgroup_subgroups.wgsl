// Sums and marks over a workgroup with subgroups: two barriers each. The device determines the order of a sum within a
// subgroup. So sums are reproducible on one device, but may differ in their last bits between devices.
var<workgroup> part: array<f32, THREADS>;
var<workgroup> marks: array<u32, THREADS>;
// Σ v over the lanes: first in each subgroup, then across subgroups.
fn total(lane: u32, v: f32) -> f32 {
  let own = subgroupAdd(v);
  if subgroup_lane == 0u { part[subgroup_at] = own; }
  workgroupBarrier();
  var sum = 0.0;
  for (var i = subgroup_lane; i < THREADS / subgroup_lanes; i += subgroup_lanes) { sum += part[i]; }
  sum = subgroupAdd(sum);
  workgroupBarrier();
  return sum;
}
// The union of all lanes' marks.
fn marked(lane: u32, mark: u32) -> u32 {
  let own = subgroupOr(mark);
  if subgroup_lane == 0u { marks[subgroup_at] = own; }
  workgroupBarrier();
  var all = 0u;
  for (var i = subgroup_lane; i < THREADS / subgroup_lanes; i += subgroup_lanes) { all |= marks[i]; }
  all = subgroupOr(all);
  workgroupBarrier();
  return all;
}
