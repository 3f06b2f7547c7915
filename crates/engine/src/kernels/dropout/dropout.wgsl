// x · mask / (1 − p). One invocation four elements, which are the words of one counter; one read, one write.

// The high word of a product of two words, from products of their halves.
fn high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu;
  let a1 = a >> 16u;
  let b0 = b & 0xffffu;
  let b1 = b >> 16u;
  let middle = a1 * b0 + ((a0 * b0) >> 16u);
  return a1 * b1 + (middle >> 16u) + ((a0 * b1 + (middle & 0xffffu)) >> 16u);
}
fn philox(counter: vec4<u32>, seed: vec2<u32>) -> vec4<u32> {
  var c = counter;
  var key = seed;
  for (var round = 0; round < 10; round += 1) {
    c = vec4(
      high(c.z, 0xcd9e8d57u) ^ c.y ^ key.x,
      c.z * 0xcd9e8d57u,
      high(c.x, 0xd2511f53u) ^ c.w ^ key.y,
      c.x * 0xd2511f53u,
    );
    key += vec2(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  let i = id * 4u;
  if i >= p.size { return; }
  let random = philox(vec4(p.block + id, 0u, p.offset0, p.offset1), vec2(p.seed0, p.seed1));
  for (var w = 0u; w < 4u && i + w < p.size; w += 1u) {
    let x = load_x(i + w);
    var v = 0.0;
    if random[w] >= p.threshold {
      v = x * p.scale;
    } else if !is_finite(x) {
      v = nan();
    }
    STORE
  }
}
