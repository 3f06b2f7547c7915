// dq = scale · Σ dS k: own rows are queries and their do; passing rows are keys and values.
var<workgroup> key_at: array<u32, BN>;
var<workgroup> label_at: array<i32, BN>;

fn row_mask_of(block: Block, row: u32, rows: u32) -> RowMask {
  var row_mask = all_masked();
  if row < rows { row_mask = row_mask_at(row / p.group, label_of(lse_at(block, row))); }
  return row_mask;
}

fn kernel(group: u32, lane: u32) {
  let tx = lane % TX;
  let ty = lane / TX;
  let rows = p.queries * p.group;
  let block = block_of(group, rows, BM);
  for (var r = lane; r < BM; r += THREADS) { own_at[r] = query_place(block, block.first + r, rows); }
  let row$i = block.first + ty * RM + $iu;
  let row_mask$i = row_mask_of(block, row$i, rows);
  let stat$i = lse_at(block, min(row$i, rows - 1u));
  let lse$i = lse_of(stat$i);
  let delta$i = delta_of(stat$i);
  var o$i_$c = vec4<f32>();
  let end = end_key(block.last / p.group);
  for (var begin = first_key(block.first / p.group); begin < end; begin += BN) {
    workgroupBarrier();
    for (var n = lane; n < BN; n += THREADS) {
      passing_at[n] = key_place(block, begin + n, end);
      key_at[n] = position(block, begin + n, end);
      var label = 0;
      if begin + n < end { label = key_label(block.b, begin + n); }
      label_at[n] = label;
    }
    let s = scores_q_k(lane);
    let d = scores_d_o_v(lane);
    let n = 4u * tx;
    let at = vec4<u32>(key_at[n], key_at[n + 1u], key_at[n + 2u], key_at[n + 3u]);
    let label = vec4<i32>(label_at[n], label_at[n + 1u], label_at[n + 2u], label_at[n + 3u]);
    let seen$i = (at >= vec4<u32>(row_mask$i.first)) & (at <= vec4<u32>(row_mask$i.last)) & (label == vec4<i32>(row_mask$i.label));
    let weight$i = weights(s.s$i, vec4<f32>(lse$i), seen$i);
    workgroupBarrier();
    pool[(ty * RM + $iu) * SCORE_ROW + tx] = select(vec4<f32>(), weight$i * (D_WEIGHT - delta$i), seen$i);
SUMS
  }
  if row$i < rows { add_d_q(query_place(block, row$i, rows), tx + $cu * TX, o$i_$c * p.scale); }
}
