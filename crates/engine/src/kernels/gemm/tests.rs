use super::pairs::LANES;
use super::{Form, Gemm, Matrix, pairs, parts};
use crate::dtype::DType;
use crate::ops::checks::{Array, TOLERANCE, compare, contexts, read};

/// Every form at sizes around the ends of its blocks, whichever a plan would choose.
#[test]
fn every_form_equals_the_plain_one() {
    for (dtype, [m, n, k]) in [
        (DType::F32, [1, 5, 70]),
        (DType::F32, [7, 65, 17]),
        (DType::F16, [70, 33, 65]),
        (DType::F32, [17, 130, 31]),
        (DType::F32, [130, 140, 16]),
        // Neighbours pair up.
        (DType::F32, [2, 2, 2]),
        (DType::F32, [17, 34, 22]),
        (DType::F32, [66, 30, 16]),
        (DType::F16, [16, 66, 40]),
        (DType::BF16, [34, 34, 12]),
    ] {
        for (trans_a, trans_b) in [(false, true), (true, false), (false, false)] {
            let a = Array::random("a", &if trans_a { [3, k, m] } else { [3, m, k] });
            let b = Array::random("b", &if trans_b { [n, k] } else { [k, n] }).stored(dtype);
            let (bias, c) = (Array::random("bias", &[n]), Array::random("c", &[3, m, n]));
            let expected = Array::from_fn(&[3, m, n], |i| {
                let sum: f64 = (0..k)
                    .map(|t| {
                        let a = a.data[i[0] * m * k + if trans_a { t * m + i[1] } else { i[1] * k + t }];
                        a * b.data[if trans_b { i[2] * k + t } else { t * n + i[2] }]
                    })
                    .sum();
                1.5 * sum + bias.data[i[2]] + c.data[(i[0] * m + i[1]) * n + i[2]]
            });
            for cx in contexts() {
                let (a, b, bias) = (a.upload(&cx), b.upload(&cx), bias.upload(&cx));
                let g = Gemm::new(m, n, k).batch(3).alpha(1.5).accumulate();
                let left = Matrix::new(&a, if trans_a { m } else { k }).transposed_if(trans_a).batched(m * k);
                let right = Matrix::new(&b, if trans_b { k } else { n }).transposed_if(trans_b);
                for form in Form::all(dtype) {
                    let c = c.upload(&cx);
                    let sum = Matrix::new(&c, n).batched(m * n);
                    // Pairs only where the operands lie so.
                    if let Form::Pairs(form) = form
                        && (cx.profile.subgroup != LANES
                            || !pairs(&g, &left, &right, &sum).is_some_and(|p| {
                                (p.a, p.b, p.accumulate) == (form.a, form.b, form.accumulate)
                            }))
                    {
                        continue;
                    }
                    parts(&cx, form, g, left, right, Some(&bias), sum).unwrap();
                    let what = format!("{form:?} at {m} x {n} x {k} on {}", cx.profile.label);
                    compare(&what, &read(&c), &expected, TOLERANCE);
                }
            }
        }
    }
}
