// sin and cos of every f32; trigonometric.rs has the maths. WGSL has no f64 and does not bound the error of its
// functions outside of [-pi, pi], so all arguments are reduced with the bits of 2/pi.
var<private> TWO_OVER_PI: array<u32, 9> = array<u32, 9>(
  0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0u);
// The low and the high word of a * b.
fn product(a: u32, b: u32) -> vec2<u32> {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let one = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let two = (a & 0xffffu) * (b >> 16u) + (one & 0xffffu);
  return vec2<u32>((two << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (one >> 16u) + (two >> 16u));
}
fn two_over_pi(k: u32, shift: u32) -> u32 {
  if shift == 0u { return TWO_OVER_PI[k]; }
  return (TWO_OVER_PI[k] << shift) | (TWO_OVER_PI[k + 1u] >> (32u - shift));
}
struct Reduced { n: u32, r: f32 }
fn reduced(x: f32) -> Reduced {
  if abs(x) < 0.78539816 { return Reduced(0u, x); }
  let bits = bitcast<u32>(x);
  let m = (bits & 0x7fffffu) | 0x800000u;
  let start = ((bits >> 23u) & 0xffu) - 120u;
  let word = start / 32u;
  let shift = start % 32u;
  // 64 bits, 62 of them after the binary point.
  let middle = product(two_over_pi(word + 1u, shift), m);
  let last = product(two_over_pi(word + 2u, shift), m).y;
  var low = middle.x + last;
  var high = two_over_pi(word, shift) * m + middle.y + u32(low < last);
  let n = (high + 0x20000000u) >> 30u;
  high -= n << 30u;
  let negative = (high & 0x80000000u) != 0u;
  if negative {
    low = ~low + 1u;
    high = ~high + u32(low == 0u);
  }
  // As a float: the first 32 bits that are not 0; 2^-30 is the unit of the high word.
  var unit = 97u;
  if high == 0u { high = low; low = 0u; unit = 65u; }
  let zeros = min(countLeadingZeros(high), 31u);
  let top = (high << zeros) | select(0u, low >> (32u - zeros), zeros > 0u);
  let size = f32(top) * bitcast<f32>((unit - zeros) << 23u) * 1.57079633;
  let r = select(size, -size, negative);
  if x < 0.0 { return Reduced(0u - n, -r); }
  return Reduced(n, r);
}
fn turned(n: u32, r: f32) -> f32 {
  let q = r * r;
  let s = fma(fma(fma(-1.9515296e-4, q, 8.332161e-3), q, -1.6666655e-1) * q, r, r);
  let c = fma(fma(fma(2.4433157e-5, q, -1.3887316e-3), q, 4.1666646e-2) * q, q, fma(-0.5, q, 1.0));
  let y = select(c, s, (n & 1u) == 0u);
  return select(y, -y, (n & 2u) != 0u);
}
fn sin_(x: f32) -> f32 {
  if !is_finite(x) { return nan(); }
  let at = reduced(x);
  return turned(at.n, at.r);
}
fn cos_(x: f32) -> f32 {
  if !is_finite(x) { return nan(); }
  let at = reduced(x);
  return turned(at.n + 1u, at.r);
}
