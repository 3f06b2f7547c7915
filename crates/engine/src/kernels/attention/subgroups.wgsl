// Over the 8 invocations of a row, which stand side by side in a subgroup.
fn highest(lane: u32, v: vec4<f32>) -> vec4<f32> {
  var m = v;
  m = max(m, subgroupShuffleXor(m, 1u));
  m = max(m, subgroupShuffleXor(m, 2u));
  m = max(m, subgroupShuffleXor(m, 4u));
  return m;
}
// Added in pairs of neighbours, of pairs, of fours: the order of the form without subgroups.
fn summed(lane: u32, v: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  var s = v;
  s = s + subgroupShuffleXor(s, 1u);
  s = s + subgroupShuffleXor(s, 2u);
  s = s + subgroupShuffleXor(s, 4u);
  return s;
}
