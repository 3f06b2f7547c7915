use super::{CrossEntropy, Reduction, reference::compute_reference};
use crate::error::Code;
use crate::op::run;
use crate::ops::checks::{Array, check, check_non_finite, contexts};

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

fn list_ops() -> impl Iterator<Item = CrossEntropy> {
    REDUCTIONS.into_iter().flat_map(|reduction| {
        [0.0, 0.1].map(|label_smoothing| CrossEntropy { reduction, label_smoothing, ..Default::default() })
    })
}

/// Returns targets with every third row ignored.
fn draw_targets(shape: &[usize], columns: usize) -> Array {
    let mut targets = Array::indices("targets", shape, columns);
    targets.data.iter_mut().skip(1).step_by(3).for_each(|t| *t = -100.0);
    targets
}

#[test]
fn equals_the_reference() {
    for op in list_ops() {
        for columns in [1, 63, 64, 65, 257] {
            for rows in [vec![1], vec![65], vec![2, 3]] {
                let x = Array::random("x", &[&rows[..], &[columns]].concat()).map(|v| 3.0 * v);
                check(&op, &[x, draw_targets(&rows, columns)], &|x| {
                    vec![compute_reference(op, &x[0], &x[1])]
                });
            }
        }
    }
}

#[test]
fn many_rows_equal_the_reference() {
    let op = CrossEntropy::default();
    let x = Array::random("x", &[2500, 5]);
    check(&op, &[x, draw_targets(&[2500], 5)], &|x| vec![compute_reference(op, &x[0], &x[1])]);
}

#[test]
fn the_mean_over_no_rows_is_nan() {
    for reduction in REDUCTIONS {
        let op = CrossEntropy { reduction, ..Default::default() };
        let ignored = Array { dtype: crate::dtype::DType::I32, ..Array::new(&[3], vec![-100.0; 3]) };
        check_non_finite(&op, &[Array::random("x", &[3, 5]), ignored], &|x| {
            vec![compute_reference(op, &x[0], &x[1])]
        });
        let none = Array { dtype: crate::dtype::DType::I32, ..Array::new(&[0], vec![]) };
        check_non_finite(&op, &[Array::new(&[0, 5], vec![]), none], &|x| {
            vec![compute_reference(op, &x[0], &x[1])]
        });
    }
}

#[test]
fn non_finite_logits_equal_the_reference() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let rows = vec![nan, 1.0, 2.0, inf, 1.0, 2.0, -inf, 1.0, 2.0, 1.0, -inf, 2.0, -inf, -inf, -inf];
    for op in list_ops() {
        let targets = Array { dtype: crate::dtype::DType::I32, ..Array::new(&[5], vec![1.0; 5]) };
        check_non_finite(&op, &[Array::new(&[5, 3], rows.clone()), targets], &|x| {
            vec![compute_reference(op, &x[0], &x[1])]
        });
    }
}

#[test]
fn labels_out_of_range_are_refused_or_give_nan() {
    for cx in contexts() {
        let x = Array::random("x", &[3, 5]).upload(&cx);
        let op = CrossEntropy { reduction: Reduction::None, ..Default::default() };
        for label in [5.0, -1.0] {
            let targets = Array::new(&[3], vec![0.0, label, -100.0]);
            let targets = Array { dtype: crate::dtype::DType::I32, ..targets };
            let t = targets.upload(&cx);
            let error = run(&cx, &op, &[&x, &t]).map(|_| ()).unwrap_err();
            assert_eq!(error.code, Code::Index);
            assert!(error.message.contains(&format!("label {label} at position 1")), "{error}");
            // If the host does not know the targets, the row is NaN.
            t.storage.record_write();
            let y = run(&cx, &op, &[&x, &t]).unwrap();
            let y = crate::ops::checks::read(&y[0]).data;
            assert!(y[0].is_finite() && y[1].is_nan() && y[2] == 0.0, "{y:?}");
        }
    }
}

#[test]
fn errors_name_both_shapes() {
    let cx = &contexts()[0];
    let x = Array::random("x", &[3, 5]).upload(cx);
    let t = Array::indices("t", &[4], 5).upload(cx);
    let error = run(cx, &CrossEntropy::default(), &[&x, &t]).map(|_| ()).unwrap_err();
    assert_eq!(error.code, Code::ShapeMismatch);
    assert!(error.message.contains("[4]") && error.message.contains("[3, 5]"), "{error}");
}
