// A row's random word, and its options as in `Sampling`.
struct Row { random: vec2<u32>, steps: f32, below: f32, above: f32, top_k: u32, top_p: u32, farthest: u32 }
fn row_of(r: u32) -> Row {
  let at = 8u * r;
  return Row(
    vec2(u32(load_rows(at)), u32(load_rows(at + 1u))),
    bitcast<f32>(load_rows(at + 2u)),
    bitcast<f32>(load_rows(at + 3u)),
    bitcast<f32>(load_rows(at + 4u)),
    u32(load_rows(at + 5u)),
    u32(load_rows(at + 6u)),
    u32(load_rows(at + 7u)),
  );
}
