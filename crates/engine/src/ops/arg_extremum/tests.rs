use super::{ArgExtremum, Extreme, reference::compute_reference};
use crate::ops::checks::{Array, check_non_finite};

fn check_both(x: Array, dim: Option<usize>) {
    for extreme in [Extreme::Max, Extreme::Min] {
        check_non_finite(&ArgExtremum { extreme, dim }, std::slice::from_ref(&x), &|x| {
            vec![compute_reference(extreme, &x[0], dim)]
        });
    }
}

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], None), (vec![n, 3], Some(0)), (vec![3, n], Some(1)), (vec![2, n, 65], Some(1))]
        {
            // Few distinct values, so that there are ties.
            check_both(Array::random("x", &shape).map(|v| (v * 5.0).round()), dim);
        }
    }
}

#[test]
fn long_rows_with_ties_across_chunks_equal_the_reference() {
    let mut x = Array::random("x", &[2, 40_001]);
    for at in [20_000, 30_000, 40_000, 40_001 + 16_384, 40_001 + 33_000] {
        x.data[at] = 2.0;
    }
    check_both(x.clone(), Some(1));
    check_both(x, None);
}

#[test]
fn nan_is_the_extremum() {
    let x = Array::new(
        &[4, 3],
        [
            1.0,
            f64::NAN,
            f64::NAN,
            f64::INFINITY,
            1.0,
            2.0,
            f64::NEG_INFINITY,
            f64::NEG_INFINITY,
            f64::NEG_INFINITY,
        ]
        .into_iter()
        .chain([3.0, 3.0, 2.0])
        .collect(),
    );
    for dim in [None, Some(0), Some(1)] {
        check_both(x.clone(), dim);
    }
}

/// i32 values that f32 cannot distinguish.
#[test]
fn integers_are_compared_exactly() {
    let x = Array::indices("x", &[3, 20_001], 1 << 30).map(|v| (v / 16.0).floor() + (1 << 29) as f64);
    for dim in [None, Some(0), Some(1)] {
        check_both(x.clone(), dim);
    }
}
