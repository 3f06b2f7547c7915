// The extreme of all lanes' cells, with subgroups; NaN if one is NaN.
fn joint(lane: u32, v: Cell) -> f32 {
  let bad = marked(lane, u32(some(nans(v))));
  let own = subgroupEXTREME(extreme(v));
  if subgroup_lane == 0u { part[subgroup_at] = own; }
  workgroupBarrier();
  var all = start();
  for (var i = subgroup_lane; i < THREADS / subgroup_lanes; i += subgroup_lanes) { all = EXTREME(all, part[i]); }
  all = subgroupEXTREME(all);
  workgroupBarrier();
  if bad != 0u { return nan(); }
  return all;
}
