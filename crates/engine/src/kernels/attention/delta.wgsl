// δ = Σ do ∘ o. One invocation a row; one read of both.
fn kernel(group: u32, lane: u32) {
  let row = group * THREADS + lane;
  if row >= p.rows { return; }
  var sum = 0.0;
  for (var d = 0u; d < p.dim; d += 1u) { sum = fma(load_d_o(row * p.dim + d), load_o(row * p.dim + d), sum); }
  store_delta(row, sum);
}
