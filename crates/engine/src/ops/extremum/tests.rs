use super::{Extreme, Extremum, reference::compute_reference};
use crate::dtype::DType;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check, check_non_finite, compare, contexts, read};

const BOTH: [Extreme; 2] = [Extreme::Max, Extreme::Min];

fn make_op(extreme: Extreme, dim: Option<usize>) -> Extremum {
    Extremum { extreme, dim, shared: false }
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], None), (vec![n, 3], Some(0)), (vec![3, n], Some(1)), (vec![2, n, 65], Some(1))]
        {
            for extreme in BOTH {
                let x = [Array::random("x", &shape)];
                check(&make_op(extreme, dim), &x, &|x| vec![compute_reference(extreme, &x[0], dim)]);
                let shared = Extremum { shared: true, ..make_op(extreme, dim) };
                check(&shared, &x, &|x| vec![compute_reference(extreme, &x[0], dim)]);
            }
        }
    }
}

#[test]
fn long_rows_equal_the_reference() {
    for dim in [None, Some(1)] {
        for extreme in BOTH {
            check(&make_op(extreme, dim), &[Array::random("x", &[2, 20_001])], &|x| {
                vec![compute_reference(extreme, &x[0], dim)]
            });
        }
    }
}

#[test]
fn nan_is_the_extremum() {
    let x = Array::new(
        &[3, 3],
        [1.0, f64::NAN, 2.0, f64::INFINITY, 1.0, 2.0].into_iter().chain([f64::NEG_INFINITY; 3]).collect(),
    );
    for dim in [None, Some(0), Some(1)] {
        for extreme in BOTH {
            check_non_finite(&make_op(extreme, dim), std::slice::from_ref(&x), &|x| {
                vec![compute_reference(extreme, &x[0], dim)]
            });
        }
    }
}

/// i32 values that f32 cannot distinguish.
#[test]
fn integers_are_compared_exactly() {
    let x = Array::indices("x", &[3, 20_001], 1 << 30).map(|v| (v / 16.0).floor() + (1 << 29) as f64);
    for dim in [None, Some(0), Some(1)] {
        for extreme in BOTH {
            check_non_finite(&make_op(extreme, dim), std::slice::from_ref(&x), &|x| {
                vec![compute_reference(extreme, &x[0], dim)]
            });
        }
    }
    assert_eq!(x.dtype, DType::I32);
}

/// Over a dimension the first of equals gets the gradient; over all they share it.
#[test]
fn ties_get_gradients_as_in_pytorch() {
    for cx in contexts() {
        let x = Array::new(&[2, 3], vec![1.0, 4.0, 4.0, 4.0, 0.0, 4.0]);
        for (dim, shared, d, expected) in [
            (Some(1), false, Array::new(&[2], vec![2.0, 3.0]), vec![0.0, 2.0, 0.0, 3.0, 0.0, 0.0]),
            (Some(0), false, Array::new(&[3], vec![2.0, 3.0, 5.0]), vec![0.0, 3.0, 5.0, 2.0, 0.0, 0.0]),
            (Some(1), true, Array::new(&[2], vec![2.0, 3.0]), vec![0.0, 1.0, 1.0, 1.5, 0.0, 1.5]),
            (None, false, Array::new(&[], vec![2.0]), vec![0.0, 0.5, 0.5, 0.5, 0.0, 0.5]),
        ] {
            let op = Extremum { shared, ..make_op(Extreme::Max, dim) };
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
