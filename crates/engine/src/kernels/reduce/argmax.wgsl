// One workgroup per row, or per column of a row: the first of equal extremes, in any order of reduction. One read.
var<workgroup> values: array<Element, THREADS>;
var<workgroup> places: array<i32, THREADS>;
fn kernel(group: u32, lane: u32) {
  let row = group / p.inner;
  let column = group % p.inner;
  let base = (row / p.chunks) * p.x_outer + (row % p.chunks) * p.x_chunk + column;
  var best = Element();
  var place = -1;
  for (var k = lane; k < p.n; k += THREADS) {
    let v = load_x(base + k * p.x_step);
    let at = index(base, row % p.chunks, k);
    if place < 0 || beats(v, at, best, place) { best = v; place = at; }
  }
  values[lane] = best;
  places[lane] = place;
  workgroupBarrier();
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    if lane < half && places[lane + half] >= 0
      && (places[lane] < 0 || beats(values[lane + half], places[lane + half], values[lane], places[lane])) {
      values[lane] = values[lane + half];
      places[lane] = places[lane + half];
    }
    workgroupBarrier();
  }
  if lane == 0u {
    let at = (row / p.chunks) * p.y_outer + (row % p.chunks) * p.y_chunk + column;
    if p.first == 1u || beats(values[0], places[0], load_value(at), load_y(at)) {
      store_value(at, values[0]);
      store_y(at, places[0]);
    }
  }
}
