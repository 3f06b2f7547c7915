// Log-sum-exp over a workgroup: log₂ THREADS barriers.
var<workgroup> maxima: array<f32, THREADS>;
// Combines the lanes' sums by halving.
fn gathered(lane: u32, own: LogSum) -> LogSum {
  maxima[lane] = own.m;
  part[lane] = own.s;
  marks[lane] = own.mark;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half {
      let a = LogSum(maxima[lane], part[lane], marks[lane]);
      let b = LogSum(maxima[lane + half], part[lane + half], marks[lane + half]);
      let both = joined(a, b);
      maxima[lane] = both.m;
      part[lane] = both.s;
      marks[lane] = both.mark;
    }
    workgroupBarrier();
  }
  let all = LogSum(maxima[0], part[0], marks[0]);
  workgroupBarrier();
  return all;
}
