// A pick: index k of the line of o and i, in [outer, picks, inner].
struct Pick { o: u32, k: u32, i: u32 }
fn pick_of(id: u32) -> Pick {
  let rest = id / p.inner;
  return Pick(rest / p.picks, rest % p.picks, id % p.inner);
}
