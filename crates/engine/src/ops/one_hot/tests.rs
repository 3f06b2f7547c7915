use super::{OneHot, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::error::Code;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, check, contexts};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        for (shape, classes) in [(vec![n], 5), (vec![3, n], 1), (vec![], n), (vec![5, 2], n)] {
            let index = Array::indices("index", &shape, classes);
            check(&OneHot { classes }, &[index], &|x| vec![compute_reference(&x[0], classes)]);
        }
    }
}

#[test]
fn wrong_indices_and_dtypes_are_refused() {
    assert_eq!(OneHot { classes: 2 }.outputs(&[&Spec::f32([2])]).unwrap_err().code, Code::Dtype);
    for cx in contexts() {
        for at in [-1.0, 2.0] {
            let index = Array { dtype: DType::I32, ..Array::new(&[1], vec![at]) };
            let error = run1(&cx, &OneHot { classes: 2 }, &[&index.upload(&cx)]).unwrap_err();
            assert_eq!(error.code, Code::Index);
        }
    }
}
