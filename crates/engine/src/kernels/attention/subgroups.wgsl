// Reductions over the 8 invocations of a row, which are contiguous in a subgroup.
fn highest(lane: u32, v: vec4<f32>) -> vec4<f32> {
  var m = v;
  m = max(m, subgroupShuffleXor(m, 1u));
  m = max(m, subgroupShuffleXor(m, 2u));
  m = max(m, subgroupShuffleXor(m, 4u));
  return m;
}
// Adds neighbours, then pairs, then fours: the same order as without subgroups.
fn summed(lane: u32, v: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  var s = v;
  s = s + subgroupShuffleXor(s, 1u);
  s = s + subgroupShuffleXor(s, 2u);
  s = s + subgroupShuffleXor(s, 4u);
  return s;
}
