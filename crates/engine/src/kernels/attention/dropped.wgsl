// The factors of weights: 0, or 1 / (1 - p). The CPU implementation is native/dropped.rs.
// The factors of four keys from position 4 * quad on, for a row of the log-sum-exp.
fn factors(quad: u32, row: u32) -> vec4<f32> {
  let random = philox(vec4<u32>(quad, p.row_base + row, 0u, 0u), vec2<u32>(p.key0, p.key1));
  let scale = 4294967296.0 / (4294967296.0 - f32(p.threshold));
  return select(vec4<f32>(), vec4<f32>(scale), random >= vec4<u32>(p.threshold));
}
// The factors of four keys from position `at` on.
fn kept4(at: u32, row: u32) -> vec4<f32> {
  let shift = at % 4u;
  var kept = factors(at / 4u, row);
  if shift != 0u {
    let next = factors(at / 4u + 1u, row);
    let one = vec4<f32>(kept.yzw, next.x);
    let two = vec4<f32>(kept.zw, next.xy);
    let three = vec4<f32>(kept.w, next.xyz);
    kept = select(select(three, two, shift == 2u), one, shift == 1u);
  }
  return kept;
}
