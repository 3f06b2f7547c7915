// A pair (i, i + h) turned by the angle of its position, or back with INVERSE. One invocation a pair, or an
// element past 2h; one read, one write.
fn kernel(group: u32, lane: u32) {
  let id = group * THREADS + lane;
  let per_head = p.dim - p.half;
  let i = id % per_head;
  var rest = id / per_head;
  let h = rest % p.heads;
  rest /= p.heads;
  let t = rest % p.time;
  let b = rest / p.time;
  if b >= p.batch { return; }
  let at = b * p.x_batch + t * p.x_row + h * p.dim + i;
  if i >= p.half {
    store_y(at + p.half, load_x(at + p.half));
    return;
  }
  var row = t;
  if POSITIONS {
    let position = load_position(b * p.position_batch + t);
    if position < 0 || u32(position) >= p.rows {
      store_y(at, nan());
      store_y(at + p.half, nan());
      return;
    }
    row = u32(position);
  }
  let first = row * p.width + i;
  // Tables of half width serve both halves.
  let second = first + p.width - p.half;
  let x0 = load_x(at);
  let x1 = load_x(at + p.half);
  if INVERSE {
    store_y(at, fma(x1, load_sin(second), x0 * load_cos(first)));
    store_y(at + p.half, fma(-x0, load_sin(first), x1 * load_cos(second)));
  } else {
    store_y(at, fma(-x1, load_sin(first), x0 * load_cos(first)));
    store_y(at + p.half, fma(x0, load_sin(second), x1 * load_cos(second)));
  }
}
