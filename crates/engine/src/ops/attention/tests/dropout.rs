//! Dropout of weights.

use super::{Attention, CAUSAL, DROPOUT, all, equal, inputs, labels};
use crate::ops::checks::contexts;
use crate::ops::dropout::Dropout;

/// Values and gradients equal the plain form, which computes its mask element by element.
#[test]
fn equals_the_plain_form() {
    let dropped = Attention { dropout: DROPOUT, ..CAUSAL };
    let open = Attention { causal: false, ..dropped };
    for sizes in [[2, 70, 70, 2, 3, 8], [1, 1, 9, 2, 4, 8], [1, 3, 7, 1, 1, 8], [1, 130, 130, 1, 2, 24]] {
        equal(dropped, &inputs(sizes));
        equal(open, &inputs(sizes));
    }
    // Windows of keys begin at each of four positions.
    for window in [1, 7, 30] {
        equal(Attention { window: Some(window), ..dropped }, &inputs([1, 70, 70, 1, 2, 8]));
    }
    equal(Attention { offset: 65, length: Some(70), ..dropped }, &inputs([2, 5, 80, 2, 2, 8]));
    let mut x = inputs([2, 66, 66, 1, 2, 8]);
    x.push(labels(&[2, 66], |i| i[1] / 33));
    x.push(labels(&[2, 66], |i| (i[1] % 33 == 0 || i[1] >= 9 * i[0]) as usize));
    equal(Attention { segments: true, mask: true, ..dropped }, &x);
    for p in [0.05, 0.9] {
        equal(Attention { dropout: Dropout { p, ..DROPOUT }, ..dropped }, &inputs([1, 40, 40, 1, 1, 8]));
    }
}

#[test]
fn another_call_has_another_mask() {
    let x = inputs([1, 33, 33, 1, 1, 8]);
    for cx in contexts() {
        let of = |dropout: Dropout| all(&cx, &Attention { dropout, ..CAUSAL }, &x)[0].data.clone();
        let first = of(DROPOUT);
        assert_eq!(first, of(DROPOUT));
        for other in
            [Dropout { offset: 4, ..DROPOUT }, Dropout { seed: 8, ..DROPOUT }, Dropout { p: 0.0, ..DROPOUT }]
        {
            assert_ne!(first, of(other), "{other:?} on {}", cx.profile.label);
        }
    }
}
