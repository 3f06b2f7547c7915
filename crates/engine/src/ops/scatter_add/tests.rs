use super::{ScatterAdd, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::error::Code;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, check, contexts};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        let cases: [([&[usize]; 3], usize); 5] = [
            ([&[n], &[n], &[n]], 0),
            ([&[3, 4], &[n, 4], &[n, 4]], 0),
            ([&[2, 7, 5], &[2, n, 5], &[2, n, 5]], 1),
            ([&[4, n, 5], &[2, 3, 4], &[3, 3, 5]], 1),
            ([&[n, 4], &[n, 9], &[n, 11]], 1),
        ];
        for ([x, index, src], dim) in cases {
            let inputs =
                [Array::random("x", x), Array::indices("index", index, x[dim]), Array::random("src", src)];
            check(&ScatterAdd { dim }, &inputs, &|x| vec![compute_reference(&x[0], &x[1], &x[2], dim)]);
        }
    }
}

#[test]
fn wrong_shapes_and_indices_are_refused() {
    let index = |shape: &[usize]| Spec { dtype: DType::I32, ..Spec::f32(shape) };
    let x = Spec::f32([2, 3]);
    for (index, src) in [
        (&index(&[3, 3]), &Spec::f32([3, 3])),
        (&index(&[2, 4]), &Spec::f32([2, 3])),
        (&index(&[2]), &Spec::f32([2])),
        (&x, &x),
        (&index(&[2, 3]), &index(&[2, 3])),
    ] {
        let error = ScatterAdd { dim: 1 }.outputs(&[&x, index, src]).unwrap_err();
        assert!(error.message.starts_with("scatterAdd"));
    }
    let index = Array { dtype: DType::I32, ..Array::new(&[1, 2], vec![0.0, 3.0]) };
    for cx in contexts() {
        let x = Array::random("x", &[2, 3]).upload(&cx);
        let error = run1(&cx, &ScatterAdd { dim: 1 }, &[&x, &index.upload(&cx), &x]).unwrap_err();
        assert_eq!(error.code, Code::Index);
    }
}
