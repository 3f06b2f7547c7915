// Sums and marks over a workgroup by subgroups: two barriers each. What a subgroup of the device adds in which order
// is its own, so sums are the same on one device, and may differ in their last bits from another's.
var<workgroup> part: array<f32, THREADS>;
var<workgroup> marks: array<u32, THREADS>;
// Σ v over the lanes: of each subgroup, then of their sums.
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
// The marks of all lanes together.
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
