// Rotates a pair (i, i + h) by the angle of its position, or back with INVERSE. One invocation per pair, and per
// element past 2h; one read, one write.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  let per_head = p.dim - p.half;
  let i = id % per_head;
  var rest = id / per_head;
  let heads = all_heads();
  let h = rest % heads;
  rest /= heads;
  let t = rest % p.time;
  let b = rest / p.time;
  if b >= p.batch { return; }
  let at = place(b, t, h) + i;
  if i >= p.half {
    store(h, at + p.half, load(h, at + p.half));
    return;
  }
  var row = t;
  if POSITIONS {
    let position = load_position(b * p.position_batch + t);
    if position < 0 || u32(position) >= p.rows {
      store(h, at, nan());
      store(h, at + p.half, nan());
      return;
    }
    row = u32(position);
  }
  let first = row * p.width + i;
  // In tables of half width both halves use the same values.
  let second = first + p.width - p.half;
  let x0 = load(h, at);
  let x1 = load(h, at + p.half);
  if INVERSE {
    store(h, at, fma(x1, load_sin(second), x0 * load_cos(first)));
    store(h, at + p.half, fma(-x0, load_sin(first), x1 * load_cos(second)));
  } else {
    store(h, at, fma(-x1, load_sin(first), x0 * load_cos(first)));
    store(h, at + p.half, fma(x0, load_sin(second), x1 * load_cos(second)));
  }
}
