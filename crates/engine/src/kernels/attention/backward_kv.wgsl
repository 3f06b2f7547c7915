// dk = scale · Σ dSᵀ q, dv = Σ Pᵀ do: own rows are keys and values; passing rows are queries and their do.
var<workgroup> first_at: array<u32, BN>;
var<workgroup> last_at: array<u32, BN>;
var<workgroup> label_at: array<i32, BN>;
var<workgroup> lse_row: array<f32, BN>;
var<workgroup> delta_row: array<f32, BN>;
DECLARE

fn kernel(group: u32, lane: u32) {
  let tx = lane % TX;
  let ty = lane / TX;
  let rows = p.queries * p.group;
  let block = block_of(group, p.keys, BM);
  for (var r = lane; r < BM; r += THREADS) { own_at[r] = key_place(block, block.first + r, p.keys); }
  let key$i = block.first + ty * RM + $iu;
  let at$i = position(block, key$i, p.keys);
  let label$i = key_label(block.b, min(key$i, p.keys - 1u));
  var k$i_$c = vec4<f32>();
  var v$i_$c = vec4<f32>();
  // Query rows that see any of these keys by position.
  let causal = (p.flags & CAUSAL) != 0u;
  let since = p.key_at + block.first;
  let past = p.key_at + block.last + p.window;
  let start = select(0u, min(since - min(since, p.query_at), p.queries) * p.group, causal);
  let end = select(rows, min(past - min(past, p.query_at), p.queries) * p.group, causal);
  for (var begin = start; begin < end; begin += BN) {
    workgroupBarrier();
    for (var n = lane; n < BN; n += THREADS) {
      let row = min(begin + n, end - 1u);
      let stat = lse_at(block, row);
      var row_mask = row_mask_at(row / p.group, label_of(stat));
      if begin + n >= end { row_mask = all_masked(); }
      passing_at[n] = query_place(block, begin + n, end);
      first_at[n] = row_mask.first;
      last_at[n] = row_mask.last;
      label_at[n] = row_mask.label;
      lse_row[n] = lse_of(stat);
ROW_ID      delta_row[n] = delta_of(stat);
    }
    let s = scores_k_q(lane);
    let d = scores_v_d_o(lane);
    let n = 4u * tx;
    let first = vec4<u32>(first_at[n], first_at[n + 1u], first_at[n + 2u], first_at[n + 3u]);
    let last = vec4<u32>(last_at[n], last_at[n + 1u], last_at[n + 2u], last_at[n + 3u]);
    let label = vec4<i32>(label_at[n], label_at[n + 1u], label_at[n + 2u], label_at[n + 3u]);
    let lse = vec4<f32>(lse_row[n], lse_row[n + 1u], lse_row[n + 2u], lse_row[n + 3u]);
    let delta = vec4<f32>(delta_row[n], delta_row[n + 1u], delta_row[n + 2u], delta_row[n + 3u]);
    let seen$i = (vec4<u32>(at$i) >= first) & (vec4<u32>(at$i) <= last) & (vec4<i32>(label$i) == label);
    let weight$i = weights(s.s$i, lse, seen$i);
KEPT    let d_score$i = select(vec4<f32>(), weight$i * (D_WEIGHT - delta), seen$i);
    workgroupBarrier();
    pool[(ty * RM + $iu) * SCORE_ROW + tx] = WEIGHT;
SUMS_V
    workgroupBarrier();
    pool[(ty * RM + $iu) * SCORE_ROW + tx] = d_score$i;
SUMS_K
  }
  if key$i < p.keys { add_d_k(key_place(block, key$i, p.keys), tx + $cu * TX, k$i_$c); }
  if key$i < p.keys { add_d_v(key_place(block, key$i, p.keys), tx + $cu * TX, v$i_$c); }
}
