// The sum of squares of one chunk, or of partial sums, and its root. One workgroup per chunk; one read.
const CHUNK: u32 = 512u;
const INFINITE: u32 = 1u;
const NOT_A_NUMBER: u32 = 2u;
var<workgroup> part: array<f32, THREADS>;
var<workgroup> mark: array<u32, THREADS>;
fn kernel(group: u32, lane: u32) {
  let base = group * CHUNK;
  let count = min(CHUNK, p.n - base);
  var sum = 0.0;
  var marks = 0u;
  for (var k = lane; k < count; k += THREADS) {
    let v = load_x(base + k);
    if is_finite(v) { sum = TERM; } else { marks |= select(INFINITE, NOT_A_NUMBER, is_nan(v)); }
  }
  part[lane] = sum;
  mark[lane] = marks;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half {
      part[lane] = part[lane] + part[lane + half];
      mark[lane] = mark[lane] | mark[lane + half];
    }
    workgroupBarrier();
  }
  if lane > 0u { return; }
  if (mark[0] & NOT_A_NUMBER) != 0u {
    store_y(group, nan());
  } else if mark[0] != 0u || !is_finite(part[0]) {
    store_y(group, bitcast<f32>(0x7f800000u + p.n - p.n));
  } else {
    store_y(group, RESULT);
  }
}
