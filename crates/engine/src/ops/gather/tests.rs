use super::{Gather, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::error::Code;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::{Op, run1};
use crate::ops::checks::{Array, check, check_non_finite, compare, contexts, read};

#[test]
fn equals_the_reference() {
    for n in [1, 63, 64, 65, 257] {
        let cases: [(&[usize], &[usize], usize); 6] = [
            (&[n], &[n], 0),
            (&[n, 3], &[5, 3], 0),
            (&[3, n], &[3, 1], 1),
            (&[2, n, 5], &[2, 7, 5], 1),
            // An index smaller than x.
            (&[4, n, 5], &[2, 3, 4], 1),
            (&[n, 4], &[n, 9], 1),
        ];
        for (x, index, dim) in cases {
            let inputs = [Array::random("x", x), Array::indices("index", index, x[dim])];
            check(&Gather { dim }, &inputs, &|x| vec![compute_reference(&x[0], &x[1], dim)]);
        }
    }
}

#[test]
fn lines_longer_than_a_binding_equal_the_reference() {
    let inputs = [Array::random("x", &[2, 3000]), Array::indices("index", &[2, 1100], 3000)];
    check(&Gather { dim: 1 }, &inputs, &|x| vec![compute_reference(&x[0], &x[1], 1)]);
}

every_variant! {
    kernels::gather::KERNELS;
    fn every_variant_equals_the_reference() {
        let index = Array { dtype: DType::I32, ..Array::new(&[2, 3], vec![6.0, 0.0, 3.0, 1.0, 5.0, 2.0]) };
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let inputs = [Array::random("x", &[2, 7]).stored(dtype), index.clone()];
            check(&Gather { dim: 1 }, &inputs, &|x| vec![compute_reference(&x[0], &x[1], 1)]);
        }
        let whole = [Array::indices("x", &[2, 7], 1 << 30), index.clone()];
        check_non_finite(&Gather { dim: 1 }, &whole, &|x| vec![compute_reference(&x[0], &x[1], 1)]);
        let x = Array::random("x", &[2, 3]);
        let mut expected = Array::new(&[2, 7], vec![0.0; 14]);
        for (i, (v, at)) in x.data.iter().zip(&index.data).enumerate() {
            expected.data[i / 3 * 7 + *at as usize] = *v;
        }
        for cx in contexts() {
            let y = cx.empty([2, 7], DType::F32).unwrap();
            kernels::gather::scatter(&cx, &y, &index.upload(&cx), &x.upload(&cx), [2, 7, 3, 1]).unwrap();
            compare("put", &read(&y), &expected, 0.0);
        }
    }
}

#[test]
fn half_values_equal_the_reference() {
    for dtype in [DType::F16, DType::BF16] {
        for index in [[3, 2], [2, 2]] {
            let inputs = [Array::random("x", &[3, 7]).stored(dtype), Array::indices("index", &index, 7)];
            check(&Gather { dim: 1 }, &inputs, &|x| vec![compute_reference(&x[0], &x[1], 1)]);
        }
    }
}

#[test]
fn integers_are_gathered_exactly() {
    for index in [[3, 2], [2, 2]] {
        let x = Array::indices("x", &[3, 7], 1 << 30);
        let inputs = [x, Array::indices("index", &index, 7)];
        check_non_finite(&Gather { dim: 1 }, &inputs, &|x| vec![compute_reference(&x[0], &x[1], 1)]);
    }
}

#[test]
fn non_finite_values_are_gathered() {
    let x = Array::new(&[4], vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0]);
    let index = Array::indices("index", &[65], 4);
    check_non_finite(&Gather { dim: 0 }, &[x, index], &|x| vec![compute_reference(&x[0], &x[1], 0)]);
}

#[test]
fn indices_out_of_range_are_refused_or_give_nan() {
    let x = Array::random("x", &[2, 5]);
    let index = Array { dtype: DType::I32, ..Array::new(&[2, 2], vec![0.0, 4.0, 5.0, -1.0]) };
    for cx in contexts() {
        let (dx, known) = (x.upload(&cx), index.upload(&cx));
        let error = run1(&cx, &Gather { dim: 1 }, &[&dx, &known]).unwrap_err();
        assert_eq!(
            (error.code, &error.message[..]),
            (Code::Index, "gather: index 5 at position 2 is outside 0..5")
        );
        known.storage.record_write();
        let y = read(&run1(&cx, &Gather { dim: 1 }, &[&dx, &known]).unwrap());
        compare("out of range", &y, &compute_reference(&x, &index, 1), 0.0);
    }
}

#[test]
fn wrong_shapes_and_dtypes_are_refused() {
    let index = |shape: &[usize]| Spec { dtype: DType::I32, ..Spec::f32(shape) };
    let x = Spec::f32([2, 3]);
    for (x, index, dim) in
        [(&x, &index(&[2, 3]), 2), (&x, &index(&[3, 3]), 1), (&x, &index(&[3]), 0), (&x, &x, 0)]
    {
        assert!(Gather { dim }.outputs(&[x, index]).unwrap_err().message.starts_with("gather"));
    }
}
