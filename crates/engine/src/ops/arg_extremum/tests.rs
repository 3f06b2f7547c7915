use super::{ArgExtremum, Extreme, plain::plain};
use crate::ops::checks::{Array, check_non_finite};

fn holds(x: Array, dim: Option<usize>) {
    for extreme in [Extreme::Max, Extreme::Min] {
        check_non_finite(&ArgExtremum { extreme, dim }, std::slice::from_ref(&x), &|x| {
            vec![plain(extreme, &x[0], dim)]
        });
    }
}

#[test]
fn equals_the_plain_form() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, dim) in
            [(vec![n], None), (vec![n, 3], Some(0)), (vec![3, n], Some(1)), (vec![2, n, 65], Some(1))]
        {
            // Few distinct values, so that there are ties.
            holds(Array::random("x", &shape).map(|v| (v * 5.0).round()), dim);
        }
    }
}

#[test]
fn long_rows_are_cut_and_ties_cross_the_cuts() {
    let mut x = Array::random("x", &[2, 40_001]);
    for at in [20_000, 30_000, 40_000, 40_001 + 16_384, 40_001 + 33_000] {
        x.data[at] = 2.0;
    }
    holds(x.clone(), Some(1));
    holds(x, None);
}

#[test]
fn nan_comes_before_all() {
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
        holds(x.clone(), dim);
    }
}

/// i32 values that f32 cannot distinguish.
#[test]
fn whole_numbers_are_compared_whole() {
    let x = Array::indices("x", &[3, 20_001], 1 << 30).map(|v| (v / 16.0).floor() + (1 << 29) as f64);
    for dim in [None, Some(0), Some(1)] {
        holds(x.clone(), dim);
    }
}
