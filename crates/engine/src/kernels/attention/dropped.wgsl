// What weights are multiplied by: 0, or 1 / (1 - p); natively the same (native/dropped.rs).

// The high word of a product of two words, from products of their halves.
fn high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let middle = a1 * b0 + ((a0 * b0) >> 16u);
  return a1 * b1 + (middle >> 16u) + ((a0 * b1 + (middle & 0xffffu)) >> 16u);
}
// Of the four keys from position 4 * quad on, for a row of the log-sum-exp.
fn factors(quad: u32, row: u32) -> vec4<f32> {
  var c = vec4<u32>(quad, p.row_base + row, 0u, 0u);
  var key = vec2<u32>(p.key0, p.key1);
  for (var round = 0; round < 10; round += 1) {
    c = vec4<u32>(
      high(c.z, 0xcd9e8d57u) ^ c.y ^ key.x,
      c.z * 0xcd9e8d57u,
      high(c.x, 0xd2511f53u) ^ c.w ^ key.y,
      c.x * 0xd2511f53u,
    );
    key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
  }
  let scale = 4294967296.0 / (4294967296.0 - f32(p.threshold));
  return select(vec4<f32>(), vec4<f32>(scale), c >= vec4<u32>(p.threshold));
}
// Of the four keys from any position on.
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
