// The values of a query row for backward: its log-sum-exp (at least FLOOR), δ = Σ do ∘ o − dL, its segment.
// EACH invocations per row; do and o are read once.
const EACH = 8u;
const FLOOR = -1.0e38;
var<workgroup> parts: array<f32, THREADS>;

fn kernel(group: u32, lane: u32) {
  let row = (group * THREADS + lane) / EACH;
  let j = lane % EACH;
  var sum = 0.0;
  if row < p.rows {
    for (var d = j; d < p.dim; d += EACH) { sum = fma(load_d_o(row * p.dim + d), load_o(row * p.dim + d), sum); }
  }
  parts[lane] = sum;
  workgroupBarrier();
  if j != 0u || row >= p.rows { return; }
  for (var i = 1u; i < EACH; i += 1u) { sum += parts[lane + i]; }
  if p.has_d_lse == 1u { sum -= load_d_lse(row); }
  var lse = load_lse(row);
  if lse < FLOOR { lse = FLOOR; }
  var segment = 0;
  if p.has_segments == 1u {
    let place = row / p.heads;
    segment = load_query_segment(place / p.queries * p.segment_batch + place % p.queries);
  }
  store_rows(row * 3u, bitcast<i32>(lse));
  store_rows(row * 3u + 1u, bitcast<i32>(sum));
  store_rows(row * 3u + 2u, segment);
}
