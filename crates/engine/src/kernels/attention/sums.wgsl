    // SUM += weights · B, KEYS passing rows at a time. RM + 4 · CC loads for 16 · RM · CC multiply-adds.
    for (var taken = 0u; taken < BN && begin + taken < end; taken += KEYS) {
      workgroupBarrier();
      for (var i = lane; i < KEYS * D4; i += THREADS) {
        let v = B4(passing_at[taken + i / D4], i % D4);
        pool[STREAM + i] = v;
CHECK
      }
      workgroupBarrier();
FINITE
        for (var n = 0u; n < KEYS; n += 4u) {
          let w$i = pool[(ty * RM + $iu) * SCORE_ROW + (taken + n) / 4u];
          let at = STREAM + n * D4 + tx;
          let x$c = pool[at + $cu * TX];
          SUM$i_$c = fma(vec4<f32>(w$i.x), x$c, SUM$i_$c);
          let y$c = pool[at + D4 + $cu * TX];
          SUM$i_$c = fma(vec4<f32>(w$i.y), y$c, SUM$i_$c);
          let z$c = pool[at + 2u * D4 + $cu * TX];
          SUM$i_$c = fma(vec4<f32>(w$i.z), z$c, SUM$i_$c);
          let v$c = pool[at + 3u * D4 + $cu * TX];
          SUM$i_$c = fma(vec4<f32>(w$i.w), v$c, SUM$i_$c);
        }
APART
    }
