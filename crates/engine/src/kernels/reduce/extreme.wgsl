// The extreme of all lanes' cells, by halving; NaN if one is NaN.
fn joint(lane: u32, v: Cell) -> f32 {
  let bad = marked(lane, u32(some(nans(v))));
  part[lane] = extreme(v);
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half { part[lane] = EXTREME(part[lane], part[lane + half]); }
    workgroupBarrier();
  }
  if bad != 0u { return nan(); }
  return part[0];
}
