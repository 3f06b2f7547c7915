use super::{Max, plain::plain};
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check, check_non_finite, compare, contexts, read};

#[test]
fn equals_the_plain_form() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], None), (vec![n, 3], Some(0)), (vec![3, n], Some(1)), (vec![2, n, 65], Some(1))]
        {
            check(&Max { dim }, &[Array::random("x", &shape)], &|x| vec![plain(&x[0], dim)]);
        }
    }
}

#[test]
fn long_rows_are_cut() {
    for dim in [None, Some(1)] {
        check(&Max { dim }, &[Array::random("x", &[2, 20_001])], &|x| vec![plain(&x[0], dim)]);
    }
}

#[test]
fn nan_is_the_largest() {
    let x = Array::new(
        &[3, 3],
        [1.0, f64::NAN, 2.0, f64::INFINITY, 1.0, 2.0].into_iter().chain([f64::NEG_INFINITY; 3]).collect(),
    );
    for dim in [None, Some(0), Some(1)] {
        check_non_finite(&Max { dim }, std::slice::from_ref(&x), &|x| vec![plain(&x[0], dim)]);
    }
}

/// Over a dimension the first of equals takes the gradient; over all they share it.
#[test]
fn ties_as_in_pytorch() {
    for cx in contexts() {
        let x = Array::new(&[2, 3], vec![1.0, 4.0, 4.0, 4.0, 0.0, 4.0]);
        for (dim, d, expected) in [
            (Some(1), Array::new(&[2], vec![2.0, 3.0]), vec![0.0, 2.0, 0.0, 3.0, 0.0, 0.0]),
            (Some(0), Array::new(&[3], vec![2.0, 3.0, 5.0]), vec![0.0, 3.0, 5.0, 2.0, 0.0, 0.0]),
            (None, Array::new(&[], vec![2.0]), vec![0.0, 0.5, 0.5, 0.5, 0.0, 0.5]),
        ] {
            let op = Max { dim };
            let x = x.upload(&cx);
            let y = run(&cx, &op, &[&x]).unwrap();
            let d = vec![Some(d.upload(&cx))];
            let d_x = op.backward(&cx, &Backward::after(&op, &[x], &y, &[true], d)).unwrap();
            let expected = Array::new(&[2, 3], expected);
            compare(
                &format!("{op:?} on {}", cx.profile.label),
                &read(d_x[0].as_ref().unwrap()),
                &expected,
                0.0,
            );
        }
    }
}
