// A Bᵀ, with own rows of A and passing rows of B. RM + 4 loads for 16 · RM multiply-adds.
fn scores_A_B(lane: u32) -> Scores {
  let tx = lane % TX;
  let ty = lane / TX;
  var s$i = vec4<f32>();
  let vectors = (p.dim + 3u) / 4u;
  for (var d = 0u; d < vectors; d += K4) {
    workgroupBarrier();
    for (var i = lane; i < BM * K4; i += THREADS) {
      pool[i / K4 * ROW + i % K4] = A4(own_at[i / K4], d + i % K4);
    }
    // Row 4 · tx + j is stored at j · TX + tx, so that neighbouring invocations read neighbouring rows.
    for (var i = lane; i < BN * K4; i += THREADS) {
      let n = i / K4;
      pool[(BM + n) * ROW + i % K4] = B4(passing_at[n % TX * 4u + n / TX], d + i % K4);
    }
    workgroupBarrier();
    for (var k = 0u; k < K4; k += 1u) {
      let b0 = pool[(BM + tx) * ROW + k];
      let b1 = pool[(BM + TX + tx) * ROW + k];
      let b2 = pool[(BM + 2u * TX + tx) * ROW + k];
      let b3 = pool[(BM + 3u * TX + tx) * ROW + k];
      let x = vec4<f32>(b0.x, b1.x, b2.x, b3.x);
      let y = vec4<f32>(b0.y, b1.y, b2.y, b3.y);
      let z = vec4<f32>(b0.z, b1.z, b2.z, b3.z);
      let w = vec4<f32>(b0.w, b1.w, b2.w, b3.w);
      let a$i = pool[(ty * RM + $iu) * ROW + k];
      s$i = fma(vec4<f32>(a$i.x), x, s$i);
      s$i = fma(vec4<f32>(a$i.y), y, s$i);
      s$i = fma(vec4<f32>(a$i.z), z, s$i);
      s$i = fma(vec4<f32>(a$i.w), w, s$i);
    }
  }
  return Scores(SCORE_LIST);
}
