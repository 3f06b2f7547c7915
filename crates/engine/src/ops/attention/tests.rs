use super::{Attention, plain::plain};
use crate::ops::checks::{Array, check};

#[test]
fn equals_the_plain_form() {
    let op = Attention { causal: true, ..Default::default() };
    for n in [1, 63, 64, 65] {
        let x = ["q", "k", "v"].map(|x| Array::random(x, &[1, n, if x == "q" { 2 } else { 1 }, 8]));
        check(&op, &x, &|x| plain(&op, x));
    }
}
