// next[n] and head[n], as documented at the kernel. One invocation per row; compares with up to N other rows.
fn kernel(group: u32, lane: u32) {
  let n = group * THREADS + lane;
  if n >= p.rows { return; }
  let id = load_ids(n);
  var first = bitcast<u32>(id) < p.vocabulary && bitcast<u32>(id) != p.padding;
  for (var k = 0u; k < n && first; k += 1u) { first = load_ids(k) != id; }
  store_head(n, select(-1, id, first));
  var k = n + 1u;
  while k < p.rows && load_ids(k) != id { k += 1u; }
  store_next(n, select(-1, i32(k), k < p.rows));
}
