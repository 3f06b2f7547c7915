// Log-sum-exp over a workgroup with subgroups: two barriers.
var<workgroup> maxima: array<f32, THREADS>;
// Combines the lanes' sums: first in each subgroup, then across subgroups.
fn gathered(lane: u32, own: LogSum) -> LogSum {
  let joint = of_subgroup(own);
  if subgroup_lane == 0u {
    maxima[subgroup_at] = joint.m;
    part[subgroup_at] = joint.s;
    marks[subgroup_at] = joint.mark;
  }
  workgroupBarrier();
  var all = no_terms();
  for (var i = subgroup_lane; i < THREADS / subgroup_lanes; i += subgroup_lanes) {
    all = joined(all, LogSum(maxima[i], part[i], marks[i]));
  }
  all = of_subgroup(all);
  workgroupBarrier();
  return all;
}
fn of_subgroup(own: LogSum) -> LogSum {
  let m = subgroupMax(own.m);
  return LogSum(m, subgroupAdd(own.s * shifted(own.m, m)), subgroupOr(own.mark));
}
