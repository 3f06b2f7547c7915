// o and log Σ exp S: own rows are queries; passing rows are keys and values.
const BAD = 256u;
var<workgroup> key_at: array<u32, BN>;
var<workgroup> label_at: array<i32, BN>;
var<workgroup> row_marks: array<atomic<u32>, TY>;
// Whether any value is not finite: a hidden weight of 0 would turn it into NaN. Not atomic, because FXC (DX12) rejects
// barriers in a loop that branches on an atomic; all invocations that write it between two barriers write 1.
var<workgroup> unsound: u32;

fn row_mask_of(block: Block, row: u32, rows: u32) -> RowMask {
  var row_mask = all_masked();
  if row < rows { row_mask = row_mask_at(row / p.group, query_label(block.b, row / p.group)); }
  return row_mask;
}
// The log-sum-exp of earlier windows of keys.
fn earlier(block: Block, row: u32, rows: u32) -> f32 {
  var lse = HIDDEN;
  if (p.flags & FIRST) == 0u && row < rows { lse = load_lse(lse_at(block, row)); }
  return lse;
}
fn sees4(row_mask: RowMask, at: vec4<u32>, label: vec4<i32>) -> vec4<bool> {
  return (at >= vec4<u32>(row_mask.first)) & (at <= vec4<u32>(row_mask.last)) & (label == vec4<i32>(row_mask.label));
}
fn sees(row_mask: RowMask, key: u32) -> bool {
  return (key_at[key] >= row_mask.first) & (key_at[key] <= row_mask.last) & (label_at[key] == row_mask.label);
}
// NaN, and infinity less infinity.
fn odd4(s: vec4<f32>) -> vec4<bool> { return nans4(s) | (s > vec4<f32>(3.4e38)); }
fn largest(s: vec4<f32>) -> f32 { return max(max(s.x, s.y), max(s.z, s.w)); }
fn infinite(v: vec4<f32>) -> bool {
  return any((bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u));
}

struct Total { scale: f32, lse: f32, bad: bool }
fn total_of(sum: f32, top: f32, marks: u32) -> Total {
  var total = Total(0.0, HIDDEN, false);
  if (marks & BAD) != 0u || ((marks & 1u) != 0u && sum == 0.0) {
    total = Total(0.0, nan(), true);
  } else if sum != 0.0 {
    total = Total(1.0 / sum, top + log(sum), false);
  }
  return total;
}

fn kernel(group: u32, lane: u32) {
  let tx = lane % TX;
  let ty = lane / TX;
  let rows = p.queries * p.group;
  let block = block_of(group, rows, BM);
  for (var r = lane; r < BM; r += THREADS) { own_at[r] = query_place(block, block.first + r, rows); }
  if lane == 0u { unsound = 0u; }
  if tx == 0u { atomicStore(&row_marks[ty], 0u); }
  var marks = 0u;
  let row$i = block.first + ty * RM + $iu;
  let row_mask$i = row_mask_of(block, row$i, rows);
  let before$i = earlier(block, row$i, rows);
  let resumes$i = !is_nan(before$i) && before$i >= FLOOR;
  marks |= select(0u, BAD << $iu, is_nan(before$i));
  var top$i = select(FLOOR, before$i, resumes$i);
  var sum$i = select(0.0, 1.0, resumes$i && tx == 0u);
  var o$i_$c = vec4<f32>();
  if resumes$i { o$i_$c = o4(query_place(block, row$i, rows), tx + $cu * TX); }
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
    let n = 4u * tx;
    let at = vec4<u32>(key_at[n], key_at[n + 1u], key_at[n + 2u], key_at[n + 3u]);
    let label = vec4<i32>(label_at[n], label_at[n + 1u], label_at[n + 2u], label_at[n + 3u]);
    let seen$i = sees4(row_mask$i, at, label);
    let odd$i = odd4(s.s$i) & seen$i;
    marks |= select(0u, 1u << $iu, any(seen$i)) | select(0u, BAD << $iu, any(odd$i));
    let live$i = seen$i & !odd$i;
    let s$i = select(vec4<f32>(HIDDEN), max(s.s$i, vec4<f32>(LOWEST)), live$i);
    workgroupBarrier();
    let most = highest(lane, vec4<f32>(LARGEST_LIST));
    let top_now$i = max(top$i, most[$i]);
    let factor$i = exp(top$i - top_now$i);
    top$i = top_now$i;
    let weight$i = select(vec4<f32>(), exp(s$i - vec4<f32>(top$i)), live$i);
    sum$i = fma(sum$i, factor$i, across(weight$i));
    o$i_$c *= factor$i;
    pool[(ty * RM + $iu) * SCORE_ROW + tx] = WEIGHT;
SUMS
  }
  atomicOr(&row_marks[ty], marks);
  let sums = summed(lane, vec4<f32>(SUM_LIST));
  let all = atomicLoad(&row_marks[ty]);
  let total$i = total_of(sums[$i], top$i, all >> $iu);
  let place$i = query_place(block, row$i, rows);
  if row$i < rows { put_o(place$i, tx + $cu * TX, select(o$i_$c * total$i.scale, vec4<f32>(nan()), total$i.bad)); }
  if row$i < rows && tx == 0u { store_lse(lse_at(block, row$i), total$i.lse); }
}
