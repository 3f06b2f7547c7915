// Reductions over the TX invocations of a row, through workgroup memory.
fn highest(lane: u32, v: vec4<f32>) -> vec4<f32> {
  pool[STREAM + lane] = v;
  workgroupBarrier();
  var m = v;
  for (var j = 0u; j < TX; j += 1u) { m = max(m, pool[STREAM + lane / TX * TX + j]); }
  return m;
}
// Adds neighbours, then pairs, then fours.
fn summed(lane: u32, v: vec4<f32>) -> vec4<f32> {
  var s = v;
  for (var mask = 1u; mask < TX; mask *= 2u) {
    workgroupBarrier();
    pool[lane] = s;
    workgroupBarrier();
    s = s + pool[lane ^ mask];
  }
  return s;
}
