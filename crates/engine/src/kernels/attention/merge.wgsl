// o and log Σ exp S from the results of all parts of the keys. One invocation per element; each part is read once.
const HIDDEN = -3.4e38;
const FLOOR = -1.0e38;
fn kernel(group: u32, lane: u32) {
  let i = group * THREADS + lane;
  if i >= p.rows * p.dim { return; }
  let row = i / p.dim;
  var top = FLOOR;
  var bad = false;
  // A part whose weights are all 0, or all hidden, contributes only this flag.
  var seen = false;
  for (var part = 0u; part < p.parts; part += 1u) {
    let lse = load_lses(part * p.rows + row);
    if is_nan(lse) { bad = true; } else { top = max(top, lse); seen = seen || lse > HIDDEN; }
  }
  var sum = 0.0;
  var o = 0.0;
  for (var part = 0u; part < p.parts; part += 1u) {
    let lse = load_lses(part * p.rows + row);
    if lse >= FLOOR && !is_nan(lse) {
      let weight = exp(lse - top);
      sum += weight;
      o = fma(weight, load_os(part * p.rows * p.dim + i), o);
    }
  }
  bad = bad || (seen && sum == 0.0);
  var scale = 0.0;
  if sum != 0.0 { scale = 1.0 / sum; }
  store_o(i, select(o * scale, nan(), bad));
  if i % p.dim == 0u {
    var total = HIDDEN;
    if sum != 0.0 { total = top + log(sum); }
    store_lse(row, select(total, nan(), bad));
  }
}
