// Σ eᵛ as (m, s): e^m · s, with m the largest v so far. Marks: 1 if a NaN or +∞ makes it NaN, 2 if there was a finite
// v, 4 if there was a −∞.
struct LogSum { m: f32, s: f32, mark: u32 }
fn no_terms() -> LogSum { return LogSum(-3.4028234e38, 0.0, 0u); }
fn infinity() -> f32 { return bitcast<f32>(p.groups - p.groups + 0x7f800000u); }
// e^(v − m) for v ≤ m; below −104 it rounds to 0, and no intermediate result overflows.
fn shifted(v: f32, m: f32) -> f32 { return exp(max(v - m, -104.0)); }
fn joined(a: LogSum, b: LogSum) -> LogSum {
  let m = max(a.m, b.m);
  return LogSum(m, a.s * shifted(a.m, m) + b.s * shifted(b.m, m), a.mark | b.mark);
}
fn with_term(a: LogSum, v: f32) -> LogSum {
  if is_finite(v) {
    let m = max(a.m, v);
    return LogSum(m, a.s * shifted(a.m, m) + shifted(v, m), a.mark | 2u);
  }
  return LogSum(a.m, a.s, a.mark | select(1u, 4u, bitcast<u32>(v) == 0xff800000u));
}
// Whether there is neither NaN nor +∞ among the terms, and not only −∞.
fn is_sound(a: LogSum) -> bool { return (a.mark & 3u) == 2u; }
// Adds four terms at once, with one rescaling.
fn with_terms(a: LogSum, v: vec4<f32>) -> LogSum {
  if all((bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u)) {
    let m = max(a.m, max(max(v.x, v.y), max(v.z, v.w)));
    let e = exp(max(v - vec4<f32>(m), vec4<f32>(-104.0)));
    return LogSum(m, a.s * shifted(a.m, m) + ((e.x + e.y) + (e.z + e.w)), a.mark | 2u);
  }
  return with_term(with_term(with_term(with_term(a, v.x), v.y), v.z), v.w);
}
