// Philox 4x32-10: four random words from a counter and a key. Needs high_word.wgsl.
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
