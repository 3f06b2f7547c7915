// The range of a window, and the windows that contain an element: shared by the kernels of this folder.
fn sizes() -> vec3<i32> { return vec3<i32>(i32(p.size0), i32(p.size1), i32(p.size2)); }
fn outs() -> vec3<i32> { return vec3<i32>(i32(p.out0), i32(p.out1), i32(p.out2)); }
fn kernels() -> vec3<i32> { return vec3<i32>(i32(p.kernel0), i32(p.kernel1), i32(p.kernel2)); }
fn strides() -> vec3<i32> { return vec3<i32>(i32(p.stride0), i32(p.stride1), i32(p.stride2)); }
fn paddings() -> vec3<i32> { return vec3<i32>(i32(p.padding0), i32(p.padding1), i32(p.padding2)); }
fn volume(n: vec3<i32>) -> i32 { return n.x * n.y * n.z; }
fn place(at: vec3<i32>, n: vec3<i32>) -> u32 { return u32((at.x * n.y + at.y) * n.z + at.z); }
fn coordinates(i: i32, n: vec3<i32>) -> vec3<i32> { return vec3<i32>(i / (n.y * n.z) % n.x, i / n.z % n.y, i % n.z); }
struct Span {
  low: vec3<i32>,
  high: vec3<i32>,
  divisor: f32,
}
// The range of window o.
fn window(o: vec3<i32>) -> Span {
  if ADAPTIVE {
    let low = o * sizes() / outs();
    let high = ((o + 1) * sizes() + outs() - 1) / outs();
    return Span(low, high, f32(volume(high - low)));
  }
  let start = o * strides() - paddings();
  let end = min(start + kernels(), sizes() + paddings());
  let low = max(start, vec3<i32>(0));
  let high = min(end, sizes());
  return Span(low, high, f32(volume(select(high - low, end - start, vec3<bool>(COUNT_PADDING)))));
}
// The windows that contain element i.
fn holders(i: vec3<i32>) -> Span {
  if ADAPTIVE {
    return Span(i * outs() / sizes(), ((i + 1) * outs() + sizes() - 1) / sizes(), 1.0);
  }
  let first = max(i + paddings() - kernels() + 1, vec3<i32>(0));
  let low = (first + strides() - 1) / strides();
  return Span(low, min((i + paddings()) / strides() + 1, outs()), 1.0);
}
