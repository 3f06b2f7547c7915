//! Dropout of weights.

use super::{Attention, CAUSAL, DROPOUT, check_attention, draw_inputs, make_labels, run_with_gradients};
use crate::ops::checks::contexts;
use crate::ops::dropout::Dropout;

/// Values and gradients equal the reference, which computes its mask element by element.
#[test]
fn equals_the_reference() {
    let dropped = Attention { dropout: DROPOUT, ..CAUSAL };
    let bidirectional = Attention { causal: false, ..dropped };
    for sizes in [[2, 70, 70, 2, 3, 8], [1, 1, 9, 2, 4, 8], [1, 3, 7, 1, 1, 8], [1, 130, 130, 1, 2, 24]] {
        check_attention(dropped, &draw_inputs(sizes));
        check_attention(bidirectional, &draw_inputs(sizes));
    }
    // Windows of keys begin at each of four positions.
    for window in [1, 7, 30] {
        check_attention(Attention { window: Some(window), ..dropped }, &draw_inputs([1, 70, 70, 1, 2, 8]));
    }
    check_attention(Attention { offset: 65, length: Some(70), ..dropped }, &draw_inputs([2, 5, 80, 2, 2, 8]));
    let mut x = draw_inputs([2, 66, 66, 1, 2, 8]);
    x.push(make_labels(&[2, 66], |i| i[1] / 33));
    x.push(make_labels(&[2, 66], |i| (i[1] % 33 == 0 || i[1] >= 9 * i[0]) as usize));
    check_attention(Attention { segments: true, mask: true, ..dropped }, &x);
    for p in [0.05, 0.9] {
        check_attention(
            Attention { dropout: Dropout { p, ..DROPOUT }, ..dropped },
            &draw_inputs([1, 40, 40, 1, 1, 8]),
        );
    }
}

#[test]
fn masks_depend_on_seed_offset_and_p() {
    let x = draw_inputs([1, 33, 33, 1, 1, 8]);
    for cx in contexts() {
        let attend =
            |dropout: Dropout| run_with_gradients(&cx, &Attention { dropout, ..CAUSAL }, &x)[0].data.clone();
        let first = attend(DROPOUT);
        assert_eq!(first, attend(DROPOUT));
        for other in
            [Dropout { offset: 4, ..DROPOUT }, Dropout { seed: 8, ..DROPOUT }, Dropout { p: 0.0, ..DROPOUT }]
        {
            assert_ne!(first, attend(other), "{other:?} on {}", cx.profile.label);
        }
    }
}
