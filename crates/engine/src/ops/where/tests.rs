use super::{Where, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

fn choose(x: &[Array]) -> Vec<Array> {
    vec![compute_reference(&x[0], &x[1], &x[2])]
}

#[test]
fn equals_the_reference() {
    let mut shapes: Vec<[Vec<usize>; 3]> = [1, 63, 64, 65, 257].map(|n| [vec![n], vec![n], vec![n]]).into();
    shapes.extend([
        [vec![3, 65], vec![65], vec![3, 1]],
        [vec![65], vec![3, 65], vec![]],
        [vec![2, 1, 5], vec![3, 1], vec![1]],
    ]);
    for [condition, a, b] in shapes {
        let inputs =
            [Array::indices("condition", &condition, 2), Array::random("a", &a), Array::random("b", &b)];
        check(&Where, &inputs, &choose);
    }
}

#[test]
fn float_conditions_equal_the_reference() {
    let condition = Array::new(&[5], vec![0.0, -0.0, 1.0, 1e-38, f64::NAN]);
    let inputs = [condition, Array::random("a", &[5]), Array::random("b", &[5])];
    check_non_finite(&Where, &inputs, &choose);
}

#[test]
fn unselected_non_finite_values_are_ignored() {
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0];
    let a = Array::from_fn(&[4, 4], |i| special[i[0]]);
    let b = Array::from_fn(&[4, 4], |i| special[i[1]]);
    check_non_finite(&Where, &[Array::indices("condition", &[4, 4], 2), a, b], &choose);
}

#[test]
fn integer_values_and_mismatched_shapes_are_refused() {
    let (f, i) = (Spec::f32([2, 3]), Spec { dtype: DType::I32, ..Spec::f32([2, 3]) });
    assert!(Where.outputs(&[&i, &f, &i]).unwrap_err().message.starts_with("where"));
    let error = Where.outputs(&[&Spec::f32([4]), &f, &f]).unwrap_err();
    assert_eq!(error.message, "where: shapes [4] and [2, 3] do not broadcast");
}
