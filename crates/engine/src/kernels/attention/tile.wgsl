// Vector i of the rows of NAME from `first`, filled up with zeros along D and from row `end` on.
fn tile_NAME(block: Block, first: u32, end: u32, i: u32) -> vec4<f32> {
  let row = first + i / WIDE;
  var v = vec4<f32>();
  if row >= end { return v; }
  let d = (i % WIDE) * 4u;
  let at = PLACE(block, row) + d;
  for (var c = 0u; c < 4u; c += 1u) { if d + c < p.dim { v[c] = load_NAME(at + c); } }
  return SCALED;
}
