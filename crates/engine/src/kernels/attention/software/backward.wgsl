// do vᵀ of the tile.
var<workgroup> d_score: array<u64, TILE * WORDS>;

// Makes of the tile's scores P, and of do vᵀ dS: a lane has the rows lane, lane + 8, .. of `rows` from query t.
fn differentiate(h: Head, t: u32, rows: u32, begin: u32, count: u32, lane: u32) {
  let whole = all_seen(t, rows, begin, count);
  for (var r = lane; r < rows; r += THREADS) {
    let lse = max(load_lse(lse_start(h, t + r)), FLOOR);
    let broken = is_nan(load_lse(lse_start(h, t + r)));
    let delta = load_delta(lse_start(h, t + r));
    for (var w = 0u; w < count / 2u; w++) {
      let at = r * WORDS + w;
      let s = vec2<f32>(first(score[at]), second(score[at]));
      let d = vec2<f32>(first(d_score[at]), second(d_score[at]));
      var weights = vec2<f32>();
      var d_s = vec2<f32>();
      for (var i = 0u; i < 2u; i++) {
        if whole || sees(h.b, t + r, begin + 2u * w + i) {
          weights[i] = select(weight(s[i], lse), nan(), broken);
          d_s[i] = weights[i] * (d[i] - delta);
        }
      }
      score[at] = word(weights.x, weights.y);
      d_score[at] = word(d_s.x, d_s.y);
    }
  }
}
