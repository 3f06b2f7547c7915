use super::{Sort, reference::compute_reference};
use crate::context::Spec;
use crate::dtype::DType;
use crate::kernel::coverage::every_variant;
use crate::kernels;
use crate::op::{Backward, Op, run};
use crate::ops::checks::{Array, check_non_finite, compare, contexts, read};

fn check_sort(x: &Array, dim: usize, count: usize) {
    for descending in [false, true] {
        let op = Sort { dim, descending, count, name: "sort" };
        check_non_finite(&op, std::slice::from_ref(x), &|x| compute_reference(&op, &x[0]));
    }
}

every_variant! {
    kernels::sort::KERNELS;
    fn equals_the_reference() {
        for n in [1, 2, 63, 64, 65, 257] {
            for (shape, dim) in [(vec![n], 0), (vec![n, 3], 0), (vec![3, n], 1), (vec![2, n, 5], 1)] {
                // Few distinct values, so that there are ties.
                let few = Array::random("x", &shape).map(|v| (v * 5.0).round());
                for x in [&Array::random("x", &shape), &few, &Array { dtype: DType::I32, ..few.clone() }] {
                    check_sort(x, dim, n);
                    check_sort(x, dim, n.div_ceil(3));
                }
            }
        }
    }
}

/// Lines larger than a binding of 4 KiB.
#[test]
fn long_lines_equal_the_reference() {
    check_sort(&Array::random("x", &[2, 3000]).map(|v| (v * 500.0).round()), 1, 3000);
    check_sort(&Array::random("x", &[5000]), 0, 7);
    check_sort(&Array::indices("x", &[2500], 1 << 30), 0, 2500);
}

#[test]
fn nan_is_the_largest_and_zeros_are_equal() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    check_sort(&Array::new(&[9], vec![1.0, nan, -inf, 0.0, -0.0, nan, inf, -1.0, 0.0]), 0, 9);
    check_sort(&Array::new(&[2, 0], vec![]), 1, 0);
}

/// Ties change the indices, so finite differences are meaningless: compares the gradient with a gather's.
#[test]
fn gradients_return_to_the_source_positions() {
    for cx in contexts() {
        for count in [257, 40] {
            let op = Sort { dim: 1, descending: true, count, name: "topk" };
            let x = Array::random("x", &[3, 257, 2]);
            let d = Array::random("d", &[3, count, 2]);
            let value = x.upload(&cx);
            let y = run(&cx, &op, &[&value]).unwrap();
            let d_outs = vec![Some(d.upload(&cx)), None];
            let d_x = op.backward(&cx, &Backward::after(&op, &[value], &y, &[true], d_outs)).unwrap();
            let mut expected = Array::new(&x.shape, vec![0.0; x.data.len()]);
            for (i, from) in compute_reference(&op, &x)[1].data.iter().enumerate() {
                let (o, rest) = (i / (count * 2), i % 2);
                expected.data[(o * 257 + *from as usize) * 2 + rest] = d.data[i];
            }
            compare("d_x", &read(d_x[0].as_ref().unwrap()), &expected, 0.0);
        }
    }
}

#[test]
fn invalid_dims_counts_and_dtypes_are_refused() {
    let half = Spec { dtype: DType::F16, ..Spec::f32([3]) };
    for (x, dim, count) in [(&Spec::f32([3]), 1, 3), (&Spec::f32([3]), 0, 4), (&half, 0, 3)] {
        let op = Sort { dim, descending: false, count, name: "topk" };
        assert!(op.outputs(&[x]).unwrap_err().message.starts_with("topk"));
    }
}
