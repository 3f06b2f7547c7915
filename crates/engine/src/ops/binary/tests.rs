use super::{Binary, reference::compute_reference};
use crate::dtype::DType;
use crate::kernels::elementwise::Function;
use crate::ops::checks::{Array, check, check_non_finite};

const SMOOTH: [Function; 5] = [Function::Add, Function::Sub, Function::Mul, Function::Div, Function::Pow];
const NONSMOOTH: [Function; 8] = [
    Function::Maximum,
    Function::Minimum,
    Function::Eq,
    Function::Ne,
    Function::Lt,
    Function::Le,
    Function::Gt,
    Function::Ge,
];

fn list_shapes() -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut shapes: Vec<_> = [1, 63, 64, 65, 257].map(|n| (vec![n], vec![n])).into();
    shapes.extend([
        (vec![3, 65], vec![65]),
        (vec![3, 1, 5], vec![2, 1]),
        (vec![], vec![4, 3]),
        (vec![2, 3, 4, 5, 2], vec![2, 1, 4, 1, 2]),
        (vec![65, 63], vec![65, 1]),
        (vec![257, 65], vec![257, 65]),
    ]);
    shapes
}

#[test]
fn equals_the_reference() {
    for f in SMOOTH.into_iter().chain(NONSMOOTH) {
        for (a, b) in list_shapes() {
            // Far from 0 (div, log) and from ties (max); positive for pow.
            let a = Array::random("a", &a).map(|v| v + 1.6);
            let b = Array::random("b", &b).map(|v| v * 0.9 + 1.613);
            check(&Binary(f), &[a, b], &|x| vec![compute_reference(f, &x[0], &x[1])]);
        }
    }
}

#[test]
fn pow_of_negative_and_zero_bases_equals_the_reference() {
    let a = Array::new(&[6], vec![-2.0, -2.0, -1.5, 0.0, 0.0, 3.0]);
    let b = Array::new(&[6], vec![2.0, 3.0, -1.0, 2.0, 0.0, 0.0]);
    check_non_finite(&Binary(Function::Pow), &[a, b], &|x| {
        vec![compute_reference(Function::Pow, &x[0], &x[1])]
    });
}

#[test]
fn non_finite_values_equal_the_reference() {
    for f in SMOOTH.into_iter().chain(NONSMOOTH) {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.5];
        let a = Array::from_fn(&[5, 5], |i| special[i[0]]);
        let b = Array::from_fn(&[5, 5], |i| special[i[1]]);
        // Pow has a separate test: its corner cases (1^NaN, NaN^0) are not PyTorch-portable.
        if f != Function::Pow {
            check_non_finite(&Binary(f), &[a, b], &|x| vec![compute_reference(f, &x[0], &x[1])]);
        }
    }
}

/// Integers that round to the same f32, with and without broadcasting.
#[test]
fn integers_are_compared_exactly() {
    let numbers = [16_777_216.0, 16_777_217.0, -2_147_483_648.0, -2_147_483_647.0, 2_147_483_647.0, 0.0];
    let pick_numbers = |shape: &[usize], at: fn(&[usize]) -> usize| {
        Array::from_fn(shape, |i| numbers[at(i) % numbers.len()]).stored(DType::I32)
    };
    for f in NONSMOOTH.into_iter().filter(|f| f.relation().is_some()) {
        let (rows, columns) = (pick_numbers(&[6, 1], |i| i[0]), pick_numbers(&[6], |i| i[0]));
        check(&Binary(f), &[rows, columns.clone()], &|x| vec![compute_reference(f, &x[0], &x[1])]);
        let next = pick_numbers(&[6], |i| i[0] + 1);
        check(&Binary(f), &[columns, next], &|x| vec![compute_reference(f, &x[0], &x[1])]);
    }
}

#[test]
fn mixed_storage_types_are_converted_to_f32() {
    let floats = Array::random("floats", &[5, 7]).map(|v| v + 2.0);
    for stored in [DType::F16, DType::BF16, DType::I32] {
        let other = match stored {
            DType::I32 => Array::indices("others", &[7], 5).map(|v| v + 1.0),
            half => Array::random("others", &[7]).map(|v| v + 2.0).stored(half),
        };
        for f in SMOOTH.into_iter().chain(NONSMOOTH) {
            check(&Binary(f), &[floats.clone(), other.clone()], &|x| {
                vec![compute_reference(f, &x[0], &x[1])]
            });
            check(&Binary(f), &[other.clone(), floats.clone()], &|x| {
                vec![compute_reference(f, &x[0], &x[1])]
            });
        }
    }
}
