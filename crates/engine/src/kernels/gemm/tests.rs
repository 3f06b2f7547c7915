use super::{Form, Gemm, Matrix, Segment, gemm, gemm_with, parts};
use crate::dtype::DType;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};

/// Σ over `k` terms of a[i, t] · b[t, j], of row-major factors or their transposes.
fn sum(a: &[f64], b: &[f64], [m, n, k]: [usize; 3], [i, j]: [usize; 2], trans: [bool; 2]) -> f64 {
    let term = |t: usize| {
        a[if trans[0] { t * m + i } else { i * k + t }] * b[if trans[1] { j * k + t } else { t * n + j }]
    };
    (0..k).map(term).sum()
}

/// Every form at sizes around the ends of its blocks, whichever a plan would choose.
#[test]
fn every_form_equals_the_plain_one() {
    for (dtype, [m, n, k]) in [
        (DType::F32, [1, 5, 70]),
        (DType::F32, [7, 65, 17]),
        (DType::F16, [70, 33, 65]),
        (DType::F32, [17, 130, 31]),
        (DType::F32, [130, 140, 16]),
        (DType::F32, [2, 2, 2]),
        (DType::F32, [17, 34, 22]),
        (DType::F16, [16, 66, 40]),
        (DType::BF16, [34, 34, 12]),
    ] {
        for trans in [[false, true], [true, false], [false, false]] {
            let [trans_a, trans_b] = trans;
            let a = Array::random("a", &if trans_a { [3, k, m] } else { [3, m, k] });
            let b = Array::random("b", &if trans_b { [n, k] } else { [k, n] }).stored(dtype);
            let (bias, c) = (Array::random("bias", &[n]), Array::random("c", &[3, m, n]));
            let expected = Array::from_fn(&[3, m, n], |i| {
                let product = sum(&a.data[i[0] * m * k..], &b.data, [m, n, k], [i[1], i[2]], trans);
                1.5 * product + bias.data[i[2]] + c.data[(i[0] * m + i[1]) * n + i[2]]
            });
            for cx in contexts() {
                let (a, b, bias) = (a.upload(&cx), b.upload(&cx), bias.upload(&cx));
                let g = Gemm::new(m, n, k).batch(3).alpha(1.5).accumulate();
                let left = Matrix::new(&a, if trans_a { m } else { k }).transposed_if(trans_a).batched(m * k);
                let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
                for form in Form::all(false) {
                    let c = c.upload(&cx);
                    let out = Matrix::new(&c, n).batched(m * n);
                    parts(&cx, form, g, left, right, Some(&bias), None, out).unwrap();
                    let what = format!("{form:?} at {m} x {n} x {k} on {}", cx.profile.label);
                    compare(&what, &read(&c), &expected, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn every_form_of_two_segments_equals_the_plain_one() {
    for (dtype, [m, n, k, r]) in
        [(DType::F32, [33, 66, 34, 6]), (DType::BF16, [18, 34, 20, 16]), (DType::F32, [17, 65, 21, 5])]
    {
        for trans_b in [true, false] {
            let a = Array::random("a", &[m, k]);
            let b = Array::random("b", &if trans_b { [n, k] } else { [k, n] }).stored(dtype);
            let a2 = Array::random("a2", &[m, r]);
            let b2 = Array::random("b2", &if trans_b { [n, r] } else { [r, n] });
            let (bias, c) = (Array::random("bias", &[n]), Array::random("c", &[m, n]));
            for with_bias in [true, false] {
                let expected = Array::from_fn(&[m, n], |i| {
                    let at = [i[0], i[1]];
                    let first = sum(&a.data, &b.data, [m, n, k], at, [false, trans_b]);
                    let second = sum(&a2.data, &b2.data, [m, n, r], at, [false, trans_b]);
                    let bias = if with_bias { bias.data[i[1]] } else { 0.0 };
                    1.5 * first + bias - 0.75 * second + c.data[i[0] * n + i[1]]
                });
                for cx in contexts() {
                    let (a, b, bias) = (a.upload(&cx), b.upload(&cx), bias.upload(&cx));
                    let (a2, b2) = (a2.upload(&cx), b2.upload(&cx));
                    let bias = with_bias.then_some(&bias);
                    let g = Gemm::new(m, n, k).alpha(1.5).accumulate();
                    let [right, right2] = [(&b, k), (&b2, r)].map(|(b, terms)| {
                        Matrix::new(b, if trans_b { terms } else { n }).transposed_if(trans_b)
                    });
                    let left = Matrix::new(&a, k);
                    let second = Segment { a: Matrix::new(&a2, r), b: right2, k: r, alpha: -0.75 };
                    for form in Form::all(true) {
                        let c = c.upload(&cx);
                        let out = Matrix::new(&c, n);
                        parts(&cx, form, g, left, right, bias, Some(second), out).unwrap();
                        let what = format!("{form:?} at {m} x {n} x {k} + {r} on {}", cx.profile.label);
                        compare(&what, &read(&c), &expected, TOLERANCE);
                    }
                    let [joined, apart] = [(); 2].map(|()| c.upload(&cx));
                    let before = cx.launches();
                    gemm_with(&cx, g, left, right, bias, Some(second), Matrix::new(&joined, n)).unwrap();
                    let launches = cx.launches() - before;
                    gemm(&cx, g, left, right, bias, Matrix::new(&apart, n)).unwrap();
                    let more = Gemm::new(m, n, r).alpha(-0.75).accumulate();
                    gemm(&cx, more, second.a, second.b, None, Matrix::new(&apart, n)).unwrap();
                    let what = format!("{m} x {n} x {k} + {r} on {}", cx.profile.label);
                    assert_eq!(read(&joined).data, read(&apart).data, "{what}");
                    if cx.profile.binding_limit > 1 << 20 {
                        assert_eq!(launches, 1, "{what}");
                    }
                }
            }
        }
    }
}
