// Coordinates in x: the start of the image, in elements, and three coordinates in it. Positions and taps are such
// coordinates; their sum is an element of x, or padding.
struct Place {
  image: u32,
  at: vec3<i32>,
}
fn strides() -> vec3<i32> {
  return vec3<i32>(i32(p.pace_d & 0xffffu), i32(p.pace_h & 0xffffu), i32(p.pace_w & 0xffffu));
}
fn steps() -> vec3<i32> {
  return vec3<i32>(i32(p.pace_d) >> 16u, i32(p.pace_h) >> 16u, i32(p.pace_w) >> 16u);
}
fn firsts() -> vec3<i32> { return vec3<i32>(p.first_d, p.first_h, p.first_w); }
fn taps() -> vec3<u32> { return vec3<u32>(p.tap_d, p.tap_hw & 0xffffu, p.tap_hw >> 16u); }
fn tap_count() -> u32 { let t = taps(); return t.x * t.y * t.z; }
fn image_size() -> u32 { return p.size_d * p.size_h * p.size_w; }
// The q-th position of the window, in image `image`.
fn position(image: u32, q: u32) -> Place {
  let i = p.start + q;
  let at = vec3<i32>(vec3<u32>(i / (p.out_w * p.out_h), i / p.out_w % p.out_h, i % p.out_w));
  return Place(image, at * strides() + firsts());
}
// The k-th tap, counted over all channels.
fn tap(k: u32) -> Place {
  let t = taps();
  let at = vec3<i32>(vec3<u32>(k / (t.y * t.z) % t.x, k / t.z % t.y, k % t.z));
  return Place(k / (t.x * t.y * t.z) * image_size(), at * steps());
}
fn take(a: Place, b: Place) -> f32 {
  let at = vec3<u32>(a.at + b.at);
  var x = 0.0;
  // Coordinates below 0 have wrapped to values beyond the end.
  if all(at < vec3<u32>(p.size_d, p.size_h, p.size_w)) {
    x = load_x(a.image + b.image + (at.x * p.size_h + at.y) * p.size_w + at.z);
  }
  return x;
}
// The digits (a channel and three coordinates) of tap k; below, of position q.
fn tap_digits(k: u32) -> vec4<u32> {
  let t = taps();
  return vec4<u32>(k / (t.x * t.y * t.z), k / (t.y * t.z) % t.x, k / t.z % t.y, k % t.z);
}
fn position_digits(q: u32) -> vec4<u32> {
  return vec4<u32>(0u, q / (p.out_w * p.out_h), q / p.out_w % p.out_h, q % p.out_w);
}
// Adds two numbers of digits, each digit below its size.
fn advanced(at: vec4<u32>, by: vec4<u32>, sizes: vec3<u32>) -> vec4<u32> {
  var sum = at + by;
  let w = u32(sum.w >= sizes.z);
  sum.w -= w * sizes.z;
  sum.z += w;
  let h = u32(sum.z >= sizes.y);
  sum.z -= h * sizes.y;
  sum.y += h;
  let d = u32(sum.y >= sizes.x);
  sum.y -= d * sizes.x;
  sum.x += d;
  return sum;
}
