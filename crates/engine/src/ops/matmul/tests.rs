use super::{Matmul, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::op::Op;
use crate::ops::checks::{Array, check, check_non_finite};

const FLAGS: [Matmul; 4] = {
    const fn op(trans_a: bool, trans_b: bool) -> Matmul {
        Matmul { trans_a, trans_b }
    }
    [op(false, false), op(false, true), op(true, false), op(true, true)]
};

fn draw_operand(name: &str, leading: &[usize], rows: usize, columns: usize, trans: bool) -> Array {
    let mut shape = leading.to_vec();
    shape.extend(if trans { [columns, rows] } else { [rows, columns] });
    Array::random(name, &shape)
}

fn check_matmul(op: Matmul, a: &[usize], b: &[usize], [m, n, k]: [usize; 3]) {
    let inputs = [draw_operand("a", a, m, k, op.trans_a), draw_operand("b", b, k, n, op.trans_b)];
    check(&op, &inputs, &|x| vec![compute_reference(op, &x[0], &x[1])]);
}

#[test]
fn equals_the_reference() {
    for op in FLAGS {
        for n in [1, 63, 64, 65, 257] {
            check_matmul(op, &[], &[], [n, 5, 3]);
            check_matmul(op, &[], &[], [3, n, 7]);
            check_matmul(op, &[], &[], [9, 2, n]);
        }
        for size in [[1, 1, 1], [8, 33, 12], [13, 31, 65], [25, 64, 17], [65, 63, 64]] {
            check_matmul(op, &[], &[], size);
        }
    }
}

#[test]
fn leading_dimensions_broadcast() {
    for op in FLAGS {
        for (a, b) in [
            (&[3][..], &[3][..]),
            (&[3], &[]),
            (&[], &[3]),
            (&[2, 3], &[3]),
            (&[2, 1], &[1, 3]),
            (&[2, 1, 2], &[3, 1]),
            (&[1], &[1, 1]),
        ] {
            check_matmul(op, a, b, [5, 9, 4]);
        }
    }
}

#[test]
fn half_weights_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        for trans_b in [false, true] {
            let op = Matmul { trans_a: false, trans_b };
            for [m, n, k] in [[1, 65, 64], [5, 33, 63], [65, 64, 257]] {
                let b = draw_operand("b", &[], k, n, trans_b).stored(dtype);
                check(&op, &[draw_operand("a", &[], m, k, false), b], &|x| {
                    vec![compute_reference(op, &x[0], &x[1])]
                });
            }
        }
    }
}

#[test]
fn non_finite_values_reach_their_rows_and_columns() {
    let draw_with = |v: f64, at: usize| {
        let mut x = Array::random("x", &[5, 5]);
        x.data[at] = v;
        x
    };
    for op in FLAGS {
        for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let inputs = [draw_with(v, 7), draw_with(0.0, 11)];
            check_non_finite(&op, &inputs, &|x| vec![compute_reference(op, &x[0], &x[1])]);
            check_non_finite(&op, &[draw_with(0.0, 7), draw_with(v, 11)], &|x| {
                vec![compute_reference(op, &x[0], &x[1])]
            });
        }
    }
}

#[test]
fn an_empty_inner_dimension_gives_zeros() {
    let op = Matmul::default();
    check(&op, &[Array::new(&[3, 0], vec![]), Array::new(&[0, 4], vec![])], &|_| {
        vec![Array::new(&[3, 4], vec![0.0; 12])]
    });
}

#[test]
fn mismatched_shapes_are_refused() {
    let op = Matmul { trans_a: false, trans_b: true };
    let message = op.outputs(&[&Spec::f32([2, 3]), &Spec::f32([4, 5])]).unwrap_err().message;
    assert_eq!(
        message,
        "matmul: shapes [2, 3] and [4, 5] (transposed) do not fit: the first has 3 columns, the second 5 rows"
    );
    let message = op.outputs(&[&Spec::f32([3]), &Spec::f32([4, 3])]).unwrap_err().message;
    assert!(message.contains("[3] and [4, 3]"), "{message}");
}
